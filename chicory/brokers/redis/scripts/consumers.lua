#!lua flags=no-writes
-- How many workers have a lease on a queue that is not over.
--
-- KEYS  1 leases (sorted set: consumer, when its lease ends in ms)
-- Returns that number; the leases of those that were taken for dead, '?' and a name, are none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = 0
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'BYSCORE')) do
  if string.sub(name, 1, 1) ~= '?' then
    count = count + 1
  end
end
return count
