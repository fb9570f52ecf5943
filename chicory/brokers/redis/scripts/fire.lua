#!lua
-- Publish what a schedule sends for one slot, unless that slot is over: whoever asks second is told so.
--
-- KEYS  1 schedules (hash: NAME, the mark; NAME#definition, NAME#fired, NAME#paused, NAME#seen)
--       2 counters (hash)  3 stream
-- ARGV  1 name  2 slot, unix seconds  3 definition  4 limit of the stream's length, or ''
--       5 result key to mark as pending, or ''  6 its ttl, ms  7 task id  8 data
--       9 of a unique message, the ms of its window, a space, and the key that holds its unique key; else ''
-- Returns 1; 0 when the slot is over or has not come, when the schedule is paused, or, and then the slot is over, when
-- another message has the unique key; -1 when the queue is full.
local name, slot = ARGV[1], tonumber(ARGV[2])
local mark = redis.call('HGET', KEYS[1], name)
local time = redis.call('TIME')
if mark and slot <= tonumber(mark) or slot > time[1] + time[2] / 1000000
  or redis.call('HEXISTS', KEYS[1], name .. '#paused') == 1 then
  return 0
end
if ARGV[4] ~= '' and redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[4]) then
  return -1
end

redis.call('HSET', KEYS[1], name, ARGV[2], name .. '#definition', ARGV[3], name .. '#fired', ARGV[2])
local unique, window
if ARGV[9] ~= '' then
  window, unique = string.match(ARGV[9], '^(%d+) (.*)$')
  if redis.call('EXISTS', unique) == 1 then
    return 0
  end
end
-- The marks may have been lost and the results not.
if ARGV[5] ~= '' and not redis.call('SET', ARGV[5], '{"state":"pending"}', 'NX', 'PX', ARGV[6]) then
  return 0
end
if unique then
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + window
  local ttl = math.max(tonumber(window), tonumber(ARGV[6]))
  redis.call('SET', unique, string.format('%s %.0f', ARGV[7], ends), 'PX', string.format('%.0f', ttl))
end
redis.call('XADD', KEYS[3], '*', 'data', ARGV[8], 'task_id', ARGV[7])
redis.call('HINCRBY', KEYS[2], 'published', 1)
return 1
