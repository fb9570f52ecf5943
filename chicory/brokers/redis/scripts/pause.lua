#!lua flags=allow-oom
-- Pause a schedule, or let it go on with the slots after now.
--
-- KEYS  1 schedules (hash: NAME, the mark; NAME#definition, NAME#fired, NAME#paused, NAME#seen)
-- ARGV  1 name  2 '1' to pause, '' to go on  3 definition
-- Returns 1, or 0 when it was so already.
local name = ARGV[1]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local stamp = string.format('%.6f', now)
if ARGV[2] == '1' then
  if redis.call('HSETNX', KEYS[1], name, stamp) == 1 then
    redis.call('HSET', KEYS[1], name .. '#definition', ARGV[3], name .. '#seen', stamp)
  end
  return redis.call('HSETNX', KEYS[1], name .. '#paused', stamp)
end

local paused = redis.call('HDEL', KEYS[1], name .. '#paused')
local mark = redis.call('HGET', KEYS[1], name)
if mark and (paused == 1 or tonumber(mark) > now) then
  redis.call('HSET', KEYS[1], name, stamp)
end
return paused
