-- Send a dead letter through its chain again, or drop it: exactly once.
-- KEYS  1 in     stream
--       2 dead   hash: id -> dead letter
--       3 index  sorted set of the tenant: id -> ms
--       4 bytes  string: bytes of all dead letters in the partition
-- ARGV  1 id   2 entry to append, "" to drop
-- Returns 1 if it was there, else 0.
local letter = redis.call('HGET', KEYS[2], ARGV[1])
if not letter then
  redis.call('ZREM', KEYS[3], ARGV[1])
  return 0
end
if ARGV[2] ~= '' then redis.call('XADD', KEYS[1], '*', 'm', ARGV[2]) end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('DECRBY', KEYS[4], #letter)
return 1
