-- Change a kept call and tell the chain of it, unless somebody else has changed it meanwhile.
-- KEYS  1 calls   hash of the device: id -> kept call
--       2 where   hash: id -> device
--       3 due     sorted set: id -> ms when the call is to be looked at
--       4 in      stream
-- ARGV  1 id   2 device   3 the call as it was read, "" for none   4 as it shall be, "" to forget it   5 due in ms
--       6 entry to append, "" for none
--       then commands to run with it: argument count, then the arguments
-- Returns 1, or 0 if it was not as it was read. The entry comes first: at maxmemory it is refused before anything else.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[3] then return 0 end
if ARGV[6] ~= '' then redis.call('XADD', KEYS[4], '*', 'm', ARGV[6]) end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1])
end
local at = 7
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
return 1
