-- Append a producer's next flush to a partition's stream, exactly once.
-- KEYS  1 in          stream: entries not done yet
--       2 producers   hash: producer id -> "<last number> <ms of its last word>"
-- ARGV  1 producer id   2 number of this flush (1, 2, 3 ...)   3 most entries the stream may hold   4 now in ms
--       5.. the flush's entries, in order
-- Returns {"ok", entries in the stream} | {"done", entries} for a repeat | {"full", entries} | {"gap", last number known}
local known = redis.call('HGET', KEYS[2], ARGV[1])
local last = known and tonumber(string.match(known, '^%d+')) or 0
local number = tonumber(ARGV[2])
local length = redis.call('XLEN', KEYS[1])
if number == last then return {'done', length} end
if number ~= last + 1 then return {'gap', last} end
if length >= tonumber(ARGV[3]) then return {'full', length} end
for i = 5, #ARGV do redis.call('XADD', KEYS[1], '*', 'm', ARGV[i]) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[4])
return {'ok', length + #ARGV - 4}
