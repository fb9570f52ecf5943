#!lua
-- Deliver at most so many messages from several streams, the first stream first.
--
-- KEYS  the streams, in the order in which they are to be emptied
-- ARGV  1 group  2 consumer  3 how many at most (256)
-- Returns {deliveries, ends}: [[stream, [[id, fields], ...]], ...], and, when there is no delivery, the id of each
-- stream's last entry, from which a blocking XREAD misses nothing.
local left = tonumber(ARGV[3])
local deliveries = {}
for _, stream in ipairs(KEYS) do
  if left <= 0 then
    break
  end
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', stream, '>')
  if reply and reply[1] then
    deliveries[#deliveries + 1] = reply[1]
    left = left - #reply[1][2]
  end
end
local ends = {}
if #deliveries == 0 then
  for i, stream in ipairs(KEYS) do
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    ends[i] = last and last[1] or '0-0'
  end
end
return {deliveries, ends}
