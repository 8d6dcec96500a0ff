-- Take points that are in the store out of the spool, and their bytes out of its count; a repeat takes nothing.
-- KEYS  1 points   stream: spool
--       2 spooled  string: bytes in the spool
-- ARGV  1 last entry that is in the store   2 the id after it
-- Returns how many entries went. The trim comes first: at maxmemory a script may begin with what frees memory only.
local size = 0
local rows = redis.call('XRANGE', KEYS[1], '-', ARGV[1])
if #rows == 0 then return 0 end
for _, row in ipairs(rows) do size = size + #row[2][2] end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
redis.call('DECRBY', KEYS[2], size)
return #rows
