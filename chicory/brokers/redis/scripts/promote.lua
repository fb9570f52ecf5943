#!lua flags=allow-oom
-- Make the due messages of one level of a queue ready, the earliest first.
--
-- KEYS  1 delayed (sorted set, score = unix seconds)  2 stream
-- ARGV  1 how many at most (256)
-- Returns {moved, wait}: wait is the seconds until the next is due as a string, '' when none waits.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local due = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, ARGV[1])
for _, data in ipairs(due) do
  local task_id = string.match(data, '^{"id":"([^"]*)"')
  if not task_id then
    local readable, message = pcall(cjson.decode, data)
    task_id = readable and type(message) == 'table' and type(message.id) == 'string' and message.id or ''
  end
  redis.call('XADD', KEYS[2], '*', 'data', data, 'task_id', task_id)
end
if #due > 0 then
  redis.call('ZREM', KEYS[1], unpack(due))
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not head[2] then
  return {#due, ''}
end
return {#due, string.format('%.6f', math.max(0, tonumber(head[2]) - now))}
