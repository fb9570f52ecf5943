#!lua flags=no-writes
-- How many messages of a queue are in each place, at one instant.
--
-- KEYS  1 dead letters (stream)  2.. stream and delayed of each level in turn
-- ARGV  1 group
-- Returns {in streams, delivered, delayed, dead}.
local entries, delivered, delayed = 0, 0, 0
for i = 2, #KEYS, 2 do
  entries = entries + redis.call('XLEN', KEYS[i])
  delayed = delayed + redis.call('ZCARD', KEYS[i + 1])
  local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1])
  if not pending.err then
    delivered = delivered + pending[1]
  end
end
return {entries, delivered, delayed, redis.call('XLEN', KEYS[1])}
