#!lua flags=allow-oom
-- Renew a consumer's lease on one queue.
--
-- KEYS  1 leases (sorted set: consumer, when its lease ends in ms)  2 workers (hash: consumer, what it says of itself)
-- ARGV  1 consumer  2 lease, ms  3 '1' to take the lease out when there is none (joining)
--       4 what it says of itself; without it there is no second key
-- Returns {held, seconds, microseconds}: 0 when the lease was taken away, and the server's time.
local time = redis.call('TIME')
if ARGV[3] ~= '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {0, time[1], time[2]}
end
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]), ARGV[1])
if ARGV[4] then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
return {1, time[1], time[2]}
