#!lua
-- Put one dead letter back into its queue; whoever asks second finds it gone.
--
-- KEYS  1 dead letters (stream)  2 stream  3 counters (hash)
-- ARGV  1 entry id  2 data  3 task id  4 result key to mark as pending, or ''  5 its ttl, ms
--       6 the key of its unique key, to be held again unless another has it, or ''
-- Returns 1, or 0 when it is not there.
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if ARGV[4] ~= '' then
  redis.call('SET', ARGV[4], '{"state":"pending"}', 'PX', ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('SET', ARGV[6], ARGV[3] .. ' 0', 'NX', 'PX', ARGV[5])
end
redis.call('XADD', KEYS[2], '*', 'data', ARGV[2], 'task_id', ARGV[3])
redis.call('HINCRBY', KEYS[3], 'replayed', 1)
return 1
