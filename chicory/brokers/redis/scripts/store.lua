#!lua flags=allow-oom
-- Keep a result record, unless a finished one is there: states only move forward.
--
-- KEYS  1 record
-- ARGV  1 record  2 ttl, ms  3 channel to say so on
-- Returns 1, or 0 when a finished record was there.
local known = redis.call('GET', KEYS[1])
if known then
  local readable, record = pcall(cjson.decode, known)
  if readable and type(record) == 'table' and (record.state == 'success' or record.state == 'failure') then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], '')
return 1
