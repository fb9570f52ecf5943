#!lua flags=allow-oom
-- Delete what is ready or delayed on one level of a queue, not what workers hold.
--
-- KEYS  1 stream  2 delayed (sorted set)  3 counters (hash)
-- ARGV  1 group
-- Returns {deleted, more}: at most 256 ready messages a call.
local last = '0-0'
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err then
  for _, group in ipairs(groups) do
    if group[2] == ARGV[1] then
      last = group[8]
    end
  end
end
local ids = {}
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 256)) do
  ids[i] = entry[1]
end
local deleted = redis.call('ZCARD', KEYS[2])
redis.call('DEL', KEYS[2])
if #ids > 0 then
  deleted = deleted + redis.call('XDEL', KEYS[1], unpack(ids))
end
if deleted > 0 then
  redis.call('HINCRBY', KEYS[3], 'purged', deleted)
end
return {deleted, #ids == 256 and 1 or 0}
