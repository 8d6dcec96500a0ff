-- Note when a device was last heard of; tell the chain if it was silent before.
-- KEYS  1 attr    hash of the device's attributes
--       2 quiet   sorted set: device -> ms when it will have been silent for too long
--       3 in      stream
--       4 gone    string: when a device of this id was deleted, in ms
-- ARGV  1 device   2 when it was made   3 when it was heard of   4 now   5 how long it may be silent unless it says so itself
--       6 value of `lastActivityTime`   7 value of `active`   8 entry that tells that it is active
-- Returns {1 if it was told else 0, how long the device may be silent}, or {0, 0} for a device that was deleted.
if tonumber(redis.call('GET', KEYS[4]) or '-1') >= tonumber(ARGV[2]) then return {0, 0} end
local known = redis.call('HMGET', KEYS[1], 'SERVER/lastActivityTime', 'SERVER/active', 'SERVER/inactivityTimeout')
local function value(blob, kind)
  local found = blob and cmsgpack.unpack(blob)[1]
  if type(found) == kind then return found end
end
local heard, last = tonumber(ARGV[3]), value(known[1], 'number') or 0
local silence = value(known[3], 'number')
if not silence or silence <= 0 then silence = tonumber(ARGV[5]) end
silence = math.min(silence, 1e12)
local told = 0
if heard + silence > tonumber(ARGV[4]) then
  if not value(known[2], 'boolean') then
    redis.call('XADD', KEYS[3], '*', 'm', ARGV[8])
    redis.call('HSET', KEYS[1], 'SERVER/active', ARGV[7])
    told = 1
  end
  redis.call('ZADD', KEYS[2], 'LT', math.floor(math.max(heard, last) + silence), ARGV[1])
end
if heard > last then redis.call('HSET', KEYS[1], 'SERVER/lastActivityTime', ARGV[6]) end
return {told, math.floor(silence)}
