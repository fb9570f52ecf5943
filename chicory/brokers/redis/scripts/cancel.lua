#!lua flags=allow-oom
-- Cancel a task, unless it is finished: note its id for all workers, and make that its result.
--
-- KEYS  1 cancelled (sorted set: task id, the millisecond until which it is noted)  2 version of that set
--       3 result record; only where results are kept here
-- ARGV  1 task id  2 channel of the workers  3 channel that says the task is finished
--       4 how long it is noted, ms, at least  5 the same for a task of which nothing is known
--       6 '1' when a task of which nothing is known is one that was finished and is forgotten
-- Returns 1, also when it was cancelled before; 0 when it is finished.
local known = KEYS[3] and redis.call('GET', KEYS[3])
if known then
  local state = string.match(known, '^{"state":"([%w_]+)"')
  if state == 'cancelled' then
    return 1
  elseif state ~= 'pending' and state ~= 'started' and state ~= 'retry' then
    return 0
  end
elseif ARGV[6] == '1' then
  return 0
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local noted = known and math.max(tonumber(ARGV[4]), redis.call('PTTL', KEYS[3])) or tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + noted, ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], last)
-- Microseconds, so that it also grows after the key was lost.
local version = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', KEYS[2])) or 0) + 1)
redis.call('SET', KEYS[2], string.format('%.0f', version), 'PXAT', last)

if known then
  local finished_at = string.format('%.6f', time[1] + time[2] / 1000000)
  redis.call('SET', KEYS[3], '{"state":"cancelled","finished_at":' .. finished_at .. '}', 'KEEPTTL')
  redis.call('PUBLISH', ARGV[3], '')
end
redis.call('PUBLISH', ARGV[2], ARGV[1])
return 1
