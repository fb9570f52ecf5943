#!lua flags=allow-oom
-- End a consumer's membership where nothing of it is pending; what is pending stays under its lease.
--
-- KEYS  1 leases (sorted set)  2 what is isolated (hash by consumer)  3.. the queue's streams
-- ARGV  1 group  2 consumer  3 workers (hash by consumer), or '' in a cluster, where it may be elsewhere
-- Returns how many streams still have deliveries of it.
local held = 0
for i = 3, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1], '-', '+', 1, ARGV[2])
  if not pending.err then
    if #pending > 0 then
      held = held + 1
    else
      redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2])
    end
  end
end
if held == 0 then
  redis.call('ZREM', KEYS[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[2])
  if ARGV[3] ~= '' then
    redis.call('HDEL', ARGV[3], ARGV[2])
  end
end
return held
