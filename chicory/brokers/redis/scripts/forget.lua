#!lua flags=allow-oom
-- Delete dead letters, counted.
--
-- KEYS  1 dead letters (stream)  2 counters (hash)
-- ARGV  1 entry id, or '' for all
-- Returns how many.
local count
if ARGV[1] == '' then
  count = redis.call('XLEN', KEYS[1])
  redis.call('DEL', KEYS[1])
else
  count = redis.call('XDEL', KEYS[1], ARGV[1])
end
if count > 0 then
  redis.call('HINCRBY', KEYS[2], 'deleted', count)
end
return count
