-- Look at a device whose time has come: tell the chain that it is silent, or look again when it could be.
-- KEYS  1 attr   2 quiet   3 in     as in active.lua
-- ARGV  1 device   2 now   3 how long it may be silent unless it says so itself
--       4 value of `active`   5 value of `inactivityAlarmTime`   6 entry that tells that it is silent
-- Returns 1 if it was told, else 0.
local known = redis.call('HMGET', KEYS[1], 'SERVER/lastActivityTime', 'SERVER/active', 'SERVER/inactivityTimeout')
local function value(blob, kind)
  local found = blob and cmsgpack.unpack(blob)[1]
  if type(found) == kind then return found end
end
local silence = value(known[3], 'number')
if not silence or silence <= 0 then silence = tonumber(ARGV[3]) end
silence = math.min(silence, 1e12)
local due = math.floor((value(known[1], 'number') or 0) + silence)
if due > tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[2], 'XX', due, ARGV[1])
  return 0
end
local active = value(known[2], 'boolean')
if active then
  redis.call('XADD', KEYS[3], '*', 'm', ARGV[6])
  redis.call('HSET', KEYS[1], 'SERVER/active', ARGV[4], 'SERVER/inactivityAlarmTime', ARGV[5])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return active and 1 or 0
