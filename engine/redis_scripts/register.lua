-- Change the registry: everything or nothing, unless the record was changed since it was read or another has a name.
-- KEYS  1 seq      string: number of the last change
--       2 record   string or hash that holds the record   (names, indexes and the rest come with the commands below)
-- ARGV  1 channel of changes   2 what the record is   3 its id
--       4 field of the record in its hash, "" where KEYS[2] is a string   5 the record as it was read, "" for none
--       6 how many names must be free or its own, then of each: key of their hash, name, holder
--       then commands: argument count, then the arguments
-- Returns {"ok", number of the change} | {"changed", 0} | {"taken", which of the names, from 1}
local record
if ARGV[4] == '' then record = redis.call('GET', KEYS[2]) else record = redis.call('HGET', KEYS[2], ARGV[4]) end
if (record or '') ~= ARGV[5] then return {'changed', 0} end
local names = tonumber(ARGV[6])
for i = 1, names do
  local at = 4 + 3 * i
  local holder = redis.call('HGET', ARGV[at], ARGV[at + 1])
  if holder and holder ~= ARGV[at + 2] then return {'taken', i} end
end
local at = 7 + 3 * names
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
local number = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], number .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
return {'ok', number}
