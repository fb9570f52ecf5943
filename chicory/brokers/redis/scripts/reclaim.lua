#!lua flags=allow-oom
-- Give back what dead consumers of one queue hold: each entry becomes a new one, with one more delivery on its count.
-- Only the dead's own pending lists are walked, so the living and how much they hold cost nothing.
--
-- KEYS  1 leases (sorted set: consumer, when its lease ends in ms)  2 counters (hash)
--       3 what is isolated (hash: consumer, its stream and entry)  4.. the queue's streams
-- ARGV  1 group  2 lease, ms  3 how many at most (256)  4 a worker known to be dead, or ''  5 why it died
--       6 '1' when a lapsed lease means death, '' when only the worker named does
--       7 the count above which only what was isolated is charged, or ''
-- Returns {given back, vanished, more, names...}: vanished entries were pending and no longer there (deleted by
-- somebody else: lost), more is 1 when there is more to do, names are the consumers that are gone now.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = tonumber(ARGV[3])
local given = 0
local vanished = 0
local held = {}
local dead = {}

-- Whether this is the worker named, in whichever of its lives: NAME, NAME+2, NAME+3, ...
local function reported(name)
  local worker = ARGV[4]
  return worker ~= '' and (name == worker
    or (string.sub(name, 1, #worker + 1) == worker .. '+' and string.match(name, '^%d+$', #worker + 2) ~= nil))
end

for i = 4, #KEYS do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[i], ARGV[1])
  if not consumers.err then
    for _, consumer in ipairs(consumers) do
      local name = consumer[2]
      local lease = redis.call('ZSCORE', KEYS[1], name)
      if not lease then
        -- The leases were lost, or a frozen worker's read was served after it had been taken for dead.  It gets one
        -- full lease, under a name that it cannot renew: it is to notice that the lease it had is gone.
        lease = redis.call('ZSCORE', KEYS[1], '?' .. name)
        if not lease then
          lease = now + tonumber(ARGV[2])
          redis.call('ZADD', KEYS[1], lease, '?' .. name)
        end
      end
      local named = reported(name)
      if named or (ARGV[6] == '1' and tonumber(lease) < now) then
        dead[name] = true
        local alone = redis.call('HGET', KEYS[3], name)
        local entries = {}
        if consumer[4] > 0 then
          if left > 0 then
            entries = redis.call('XPENDING', KEYS[i], ARGV[1], '-', '+', left, name)
          end
          left = left - #entries
          for _, entry in ipairs(entries) do
            local found = redis.call('XRANGE', KEYS[i], entry[1], entry[1])[1]
            if found then
              local field = {}
              for f = 1, #found[2], 2 do
                field[found[2][f]] = found[2][f + 1]
              end
              local why = named and ARGV[5] ~= '' and ARGV[5] or 'its lease ran out'
              -- One less than the count.
              local deliveries = tonumber(field.deliveries) or 0
              if ARGV[7] == '' or deliveries + 1 < tonumber(ARGV[7]) or alone == KEYS[i] .. ' ' .. entry[1] then
                deliveries = deliveries + 1
              end
              redis.call('XADD', KEYS[i], '*', 'data', field.data or '', 'task_id', field.task_id or '',
                'deliveries', deliveries, 'cause', why)
              redis.call('XDEL', KEYS[i], entry[1])
              given = given + 1
            else
              vanished = vanished + 1
            end
            redis.call('XACK', KEYS[i], ARGV[1], entry[1])
          end
        end
        if consumer[4] > #entries then
          held[name] = true
        else
          redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], name)
        end
      end
    end
  end
end

local answer = {given, vanished, next(held) and 1 or 0}
for name in pairs(dead) do
  if not held[name] then
    redis.call('ZREM', KEYS[1], name, '?' .. name)
    redis.call('HDEL', KEYS[3], name)
    answer[#answer + 1] = name
  end
end
if given > 0 then
  redis.call('HINCRBY', KEYS[2], 'reclaimed', given)
end
if vanished > 0 then
  redis.call('HINCRBY', KEYS[2], 'lost', vanished)
end
return answer
