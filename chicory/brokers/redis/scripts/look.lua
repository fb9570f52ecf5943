#!lua flags=allow-oom
-- Tell what is remembered of the schedules, and the time.  Those that are named begin now where they are new.
--
-- KEYS  1 schedules (hash: NAME, the mark; NAME#definition, NAME#fired, NAME#paused, NAME#seen)
-- ARGV  1 seconds after which a schedule that was not named is forgotten  2 seconds between two notes that one was
--       then for each (at most 256): name, definition.  Where none is named, nothing is written.
-- Returns {now, fields}: unix seconds as a string, and the fields of the hash with their values.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local stamp = string.format('%.6f', now)

for i = 3, #ARGV, 2 do
  local name = ARGV[i]
  if redis.call('HSETNX', KEYS[1], name, stamp) == 1 then
    redis.call('HSET', KEYS[1], name .. '#definition', ARGV[i + 1])
  end
  local seen = redis.call('HGET', KEYS[1], name .. '#seen')
  if not seen or now - tonumber(seen) >= tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], name .. '#seen', stamp)
  end
end

local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #ARGV > 2 and #fields or 0, 2 do
  local name = string.match(fields[i], '^(.*)#seen$')
  if name and now - tonumber(fields[i + 1]) > tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], name, name .. '#definition', name .. '#fired', name .. '#paused', name .. '#seen')
  end
end
return {stamp, fields}
