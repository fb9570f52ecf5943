#!lua flags=allow-oom
-- Renew the leases that living workers have on one queue; of each worker the one of its last life (NAME, NAME+2, ...),
-- for it begins another only when the one before is over.  A lease that was taken away stays away.
--
-- KEYS  1 leases (sorted set: consumer, when its lease ends in ms)
-- ARGV  1 lease, ms  2.. workers (at most 256)
-- Returns how many leases were renewed.
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local living = {}
for i = 2, #ARGV do
  living[ARGV[i]] = true
end

local last = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local worker, life = name, 1
  if not living[name] then
    local first, number = string.match(name, '^(.*)%+(%d+)$')
    worker, life = first, tonumber(number)
  end
  if worker and living[worker] and (not last[worker] or life > last[worker].life) then
    last[worker] = {name = name, life = life}
  end
end

local renewed = 0
for _, one in pairs(last) do
  redis.call('ZADD', KEYS[1], ends, one.name)
  renewed = renewed + 1
end
return renewed
