-- Write a parked message's attempts and next due time, unless it has been taken meanwhile.
-- KEYS  1 parked  hash: id -> parked message
--       2 due     sorted set: id -> ms
-- ARGV  1 id   2 parked message   3 due in ms
-- Returns 1 if it was still parked, else 0.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
