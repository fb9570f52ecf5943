#!lua
-- Put a batch of messages into one queue, ready or delayed.  Each batch is applied once, however often it is sent.
--
-- KEYS  1 publisher's session: number and answer of its last batch  2 counters (hash)  3 stream  4 delayed (sorted set)
-- ARGV  1 batch number  2 session ttl, ms  3 limit of the stream's length, or ''  4 wake channel
--       5 result key prefix, or ''  6 ttl of a pending result, ms
--       then for each message (at most 256): id, data, due ('' now, '@t' unix seconds, '+s' from now), note
--       note: '1' to note it as pending (a task id that is known already is then not published again), else ''; of a
--       unique message '1' or '0', the ms of its window, a space, and the key that holds 'task id, end of window in ms'
-- Returns how many messages, from the first on, were taken; the rest found the queue full.  Where some of them were not
-- published because others have their unique keys, a text: that number, then for each its place, 1-based, and the id of
-- the one that has its key.
local seen = redis.call('GET', KEYS[1])
if seen then
  local number, answer = string.match(seen, '(%d+):(.*)')
  if tonumber(number) >= tonumber(ARGV[1]) then
    return tonumber(answer) or answer
  end
end

local limit = tonumber(ARGV[3])
local room = limit and limit - redis.call('XLEN', KEYS[3])
local now
local head
local first
local taken = 0
local published = 0
local instead = ''
local clock

for i = 7, #ARGV, 4 do
  local due = ARGV[i + 2]
  local at
  if due ~= '' then
    if not now then
      local time = redis.call('TIME')
      now = time[1] + time[2] / 1000000
      head = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2]
    end
    at = tonumber(string.sub(due, 2))
    if string.sub(due, 1, 1) == '+' then
      at = now + at
    end
    if at <= now then
      at = nil
    end
  end
  local note = ARGV[i + 3]
  local unique, window, holder
  if note ~= '' and note ~= '1' then
    note, window, unique = string.match(note, '^([01])(%d+) (.*)$')
    holder = redis.call('GET', unique)
  end
  if room and not at and room <= 0 and not holder then
    break
  end
  taken = taken + 1
  if holder then
    holder = string.match(holder, '^%S+')
    if holder ~= ARGV[i] then
      instead = instead .. ' ' .. (i - 3) / 4 .. ' ' .. holder
    end
  elseif note ~= '1' or redis.call('SET', ARGV[5] .. ARGV[i], '{"state":"pending"}', 'NX', 'PX', at and math.ceil(tonumber(ARGV[6]) + (at - now) * 1000) or ARGV[6]) then
    published = published + 1
    if unique then
      if not clock then
        local time = redis.call('TIME')
        clock = time[1] * 1000 + math.floor(time[2] / 1000)
      end
      local ends = clock + window
      -- Until it is finished, which may be long after it is due; settling says so.
      local ttl = math.max(tonumber(window), tonumber(ARGV[6]) + (at and math.ceil(at * 1000 - clock) or 0))
      redis.call('SET', unique, string.format('%s %.0f', ARGV[i], ends), 'PX', string.format('%.0f', ttl))
    end
    if at then
      redis.call('ZADD', KEYS[4], string.format('%.6f', at), ARGV[i + 1])
      if not first or at < first then
        first = at
      end
    else
      redis.call('XADD', KEYS[3], '*', 'data', ARGV[i + 1], 'task_id', ARGV[i])
      if room then
        room = room - 1
      end
    end
  end
end

if first and (not head or first < tonumber(head)) then
  redis.call('PUBLISH', ARGV[4], '')
end
redis.call('HINCRBY', KEYS[2], 'published', published)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. taken .. instead, 'PX', ARGV[2])
return instead == '' and taken or taken .. instead
