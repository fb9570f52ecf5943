#!lua flags=allow-oom
-- Delete what is ready or delayed on one level of a queue, not what workers hold.
--
-- KEYS  1 stream  2 delayed (sorted set)  3 counters (hash)
-- ARGV  1 group  2 '1' to delete what is delayed too
--       3 result key prefix, or ''  4 done channel prefix: whoever waits for such a task is to look again
--       5 what comes before a unique key in the key that holds it
-- Returns {deleted, more}: at most 256 of each kind a call.
local last = '0-0'
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err then
  for _, group in ipairs(groups) do
    if group[2] == ARGV[1] then
      last = group[8]
    end
  end
end

local function forget(task_id)
  if ARGV[3] ~= '' and task_id and task_id ~= '' then
    local known = redis.call('GET', ARGV[3] .. task_id)
    local state = known and string.match(known, '^{"state":"([%w_]+)"')
    -- One that was cancelled is finished, although its message waits.
    if state == 'pending' or state == 'started' or state == 'retry' then
      redis.call('DEL', ARGV[3] .. task_id)
      redis.call('PUBLISH', ARGV[4] .. task_id, '')
    end
  end
end

-- What will never run holds no unique key.
local function release(data)
  if string.find(data, '"unique":', 1, true) then
    local readable, message = pcall(cjson.decode, data)
    if readable and type(message) == 'table' and type(message.unique) == 'string' then
      local key = ARGV[5] .. message.unique
      local holder = redis.call('GET', key)
      if holder and string.match(holder, '^%S+') == message.id then
        redis.call('DEL', key)
      end
    end
  end
end

local ids = {}
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 256)) do
  ids[i] = entry[1]
  for f = 1, #entry[2], 2 do
    if entry[2][f] == 'task_id' then
      forget(entry[2][f + 1])
    elseif entry[2][f] == 'data' then
      release(entry[2][f + 1])
    end
  end
end
local deleted = 0
if #ids > 0 then
  deleted = redis.call('XDEL', KEYS[1], unpack(ids))
end

local delayed = {}
if ARGV[2] == '1' then
  delayed = redis.call('ZRANGE', KEYS[2], 0, 255)
  for _, data in ipairs(delayed) do
    forget(string.match(data, '^{"id":"([^"]*)"'))
    release(data)
  end
  if #delayed > 0 then
    deleted = deleted + redis.call('ZREM', KEYS[2], unpack(delayed))
  end
end
if deleted > 0 then
  redis.call('HINCRBY', KEYS[3], 'purged', deleted)
end
return {deleted, (#ids == 256 or #delayed == 256) and 1 or 0}
