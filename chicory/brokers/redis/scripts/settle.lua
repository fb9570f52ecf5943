#!lua flags=allow-oom
-- Carry out the outcomes of one consumer's deliveries from one stream.  Finishing must work on a full server.
--
-- An entry is delivered to one consumer and never claimed by another: taking it back makes a new entry and deletes the
-- old one.  So to own a delivery is to have its id still pending, and XACK itself is the fence.
--
-- KEYS  1 consumer's session: number and answer of its last batch  2 counters (hash)  3 stream  4 delayed (sorted set)  5 dead letters (stream)
--       6 cancelled (sorted set of task ids); not in a cluster, where it may be elsewhere
-- ARGV  1 batch number  2 session ttl, ms  3 group  4 wake channel  5 result key prefix  6 done channel prefix
--       7 result ttl, ms  8 ttl of an unfinished result, ms  9 limit of the dead letters, or ''
--       10 channel that whoever waits for any result listens to
--       11 how many pending entries follow (at most 256)  12.. their ids, one argument each
--       then for every item, those with a pending entry first and in the order of the ids:
--         'ack'
--         'done' | 'failed', task id, record
--         'dead', task id, record, data, failed at, error, retries, task name, traceback
--         'retry', task id, record, data, delay in seconds
--         'release', task id, data, deliveries, cause
--       then, for each that has a unique key: 'unique', its place among the items (1-based), the key, task id, and what
--       becomes of it: 'window' (held until its window ends), 'free', or for how many ms more it may be held at most
--       A cancelled task has failed, whatever is said of it; only giving it back stays that, and it is still cancelled.
--       A record of '' stores nothing.  Items beyond the ids were acknowledged before their runs.
-- Returns one character an item: '1' carried out, '0' no longer ours.  A batch sent again returns the same.
local seen = redis.call('GET', KEYS[1])
if seen then
  local number, answer = string.match(seen, '(%d+):(%d*)')
  if tonumber(number) >= tonumber(ARGV[1]) then
    return answer
  end
end

local count = tonumber(ARGV[11])
local ids = {}
for i = 1, count do
  ids[i] = ARGV[11 + i]
end
local all = true
if count > 0 then
  all = redis.call('XACK', KEYS[3], ARGV[3], unpack(ids)) == count
  if all then
    redis.call('XDEL', KEYS[3], unpack(ids))
  end
end

local totals = {}
local function tally(name)
  totals[name] = (totals[name] or 0) + 1
end

-- Who waits subscribes before it looks, so when nobody has subscribed nobody can have looked too early.
local waited_for = ARGV[10] ~= '' and redis.call('PUBSUB', 'NUMSUB', ARGV[10])[2] > 0

local function store(task_id, record, finished)
  if record ~= '' then
    if finished then
      redis.call('SET', ARGV[5] .. task_id, record, 'PX', ARGV[7])
      if waited_for then
        redis.call('PUBLISH', ARGV[6] .. task_id, '')
      end
    else
      redis.call('SET', ARGV[5] .. task_id, record, 'PX', ARGV[8])
    end
  end
end

-- Mostly there is none, so one look serves all.
local any_cancelled = KEYS[6] and redis.call('EXISTS', KEYS[6]) == 1

local function cancelled(kind, task_id, record)
  if kind == 'ack' or kind == 'release' or task_id == '' or redis.call('ZREM', KEYS[6], task_id) == 0 then
    return false
  end
  if string.sub(record, 1, 20) == '{"state":"cancelled"' then
    store(task_id, record, true)
  elseif ARGV[5] ~= '' then
    redis.call('PEXPIRE', ARGV[5] .. task_id, ARGV[7])
  end
  tally('failed')
  return true
end

local now
local reply = {}
-- The items that were cancelled: their ends are other ones than was said.
local refused = {}
local width = {ack = 1, done = 3, failed = 3, dead = 9, retry = 5, release = 5}
local at = 12 + count
local item = 0
while at <= #ARGV and ARGV[at] ~= 'unique' do
  item = item + 1
  local kind = ARGV[at]
  local ours = all or item > count or redis.call('XDEL', KEYS[3], ids[item]) == 1
  if not ours then
    tally('stale')
  elseif any_cancelled and cancelled(kind, ARGV[at + 1], ARGV[at + 2]) then
    refused[item] = true
  elseif kind == 'done' or kind == 'failed' then
    store(ARGV[at + 1], ARGV[at + 2], true)
    tally(kind)
  elseif kind == 'dead' then
    store(ARGV[at + 1], ARGV[at + 2], true)
    redis.call('XADD', KEYS[5], '*', 'data', ARGV[at + 3], 'failed_at', ARGV[at + 4], 'error', ARGV[at + 5],
      'retry_count', ARGV[at + 6], 'task_id', ARGV[at + 1], 'task_name', ARGV[at + 7], 'traceback', ARGV[at + 8])
    tally('dead')
  elseif kind == 'retry' then
    store(ARGV[at + 1], ARGV[at + 2], false)
    local delay = tonumber(ARGV[at + 4])
    if delay > 0 then
      if not now then
        local time = redis.call('TIME')
        now = time[1] + time[2] / 1000000
      end
      redis.call('ZADD', KEYS[4], string.format('%.6f', now + delay), ARGV[at + 3])
      if redis.call('ZRANK', KEYS[4], ARGV[at + 3]) == 0 then
        redis.call('PUBLISH', ARGV[4], '')
      end
    else
      redis.call('XADD', KEYS[3], '*', 'data', ARGV[at + 3], 'task_id', ARGV[at + 1])
    end
    tally('retried')
  elseif kind == 'release' then
    redis.call('XADD', KEYS[3], '*', 'data', ARGV[at + 2], 'task_id', ARGV[at + 1],
      'deliveries', ARGV[at + 3], 'cause', ARGV[at + 4])
    tally('released')
  end
  reply[item] = ours and '1' or '0'
  at = at + width[kind]
end

while at <= #ARGV do
  local place, key = tonumber(ARGV[at + 1]), ARGV[at + 2]
  local becomes = refused[place] and 'free' or ARGV[at + 4]
  local holder = reply[place] == '1' and redis.call('GET', key)
  if holder and string.match(holder, '^%S+') == ARGV[at + 3] then
    if becomes == 'free' then
      redis.call('DEL', key)
    elseif becomes == 'window' then
      -- An instant that has passed deletes it.
      redis.call('PEXPIREAT', key, string.match(holder, '%d+$'))
    else
      redis.call('PEXPIRE', key, becomes)
    end
  end
  at = at + 5
end

-- Only a limit that was asked for trims dead letters, and what it took is counted.
if totals.dead and ARGV[9] ~= '' then
  local trimmed = redis.call('XTRIM', KEYS[5], 'MAXLEN', ARGV[9])
  if trimmed > 0 then
    totals.trimmed = trimmed
  end
end
for name, total in pairs(totals) do
  redis.call('HINCRBY', KEYS[2], name, total)
end
local answer = table.concat(reply)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. answer, 'PX', ARGV[2])
return answer
