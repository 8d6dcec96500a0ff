-- Bring a parked message back: of timer, answer and call result, or of two workers, exactly one wins.
-- KEYS  1 in      stream
--       2 parked  hash: id -> parked message
--       3 due     sorted set: id -> ms
-- ARGV  1 id   2 why it comes back (encoded Resumed)
-- Returns 1 if this call took it, 0 if somebody else had.
local parked = redis.call('HGET', KEYS[2], ARGV[1])
if not parked then return 0 end
redis.call('XADD', KEYS[1], '*', 'p', parked, 'r', ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
