-- Note when a device connected or disconnected, and tell the chain.
-- KEYS  1 attr   2 in   3 gone     as in active.lua
-- ARGV  1 when the device was made   2 field   3 its value   4 entry
-- Returns 1, or 0 for a device that was deleted.
if tonumber(redis.call('GET', KEYS[3]) or '-1') >= tonumber(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[4])
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
