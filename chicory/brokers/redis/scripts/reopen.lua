#!lua flags=allow-oom
-- Make a task whose dead letter is about to be replayed pending again.
--
-- KEYS  1 record
-- ARGV  1 ttl of a pending result, ms
-- Returns 1, or 0 when it is no dead letter.
local known = redis.call('GET', KEYS[1])
if not known or string.match(known, '^{"state":"([%w_]+)"') ~= 'dead_lettered' then
  return 0
end
redis.call('SET', KEYS[1], '{"state":"pending"}', 'PX', ARGV[1])
return 1
