#!lua flags=allow-oom
-- Keep a result record, unless the one there is further on: states only move forward.
--
-- KEYS  1 record
-- ARGV  1 record  2 ttl, ms; '' for a note, which is only kept where a record is, for as long as that one
--       3 channel to say so on, '' to say nothing  4 step: see ResultRecord.step  5 the last step, which is final
-- Returns 1, or 0 when nothing was changed.
local known = redis.call('GET', KEYS[1])
if known then
  local state = string.match(known, '^{"state":"([%w_]+)"')
  local step = tonumber(ARGV[5])
  if state == 'pending' then
    step = 0
  elseif state == 'started' or state == 'retry' then
    step = 2 * (cjson.decode(known).retries or 0) + (state == 'started' and 1 or 0)
  end
  if step == tonumber(ARGV[5]) or step > tonumber(ARGV[4]) then
    return 0
  end
elseif ARGV[2] == '' then
  return 0
end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
if ARGV[3] ~= '' then
  redis.call('PUBLISH', ARGV[3], '')
end
return 1
