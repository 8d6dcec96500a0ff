-- Read a spool from an entry on: as many entries as fit into so many bytes, one at least. Changes nothing.
-- KEYS  1 points   stream: spool
-- ARGV  1 entry after which to begin   2 most entries   3 most bytes
-- Returns {entries as XRANGE gives them, 1 if there are no more behind them, else 0}
local rows, size, after = {}, 0, ARGV[1]
local most, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
while #rows < most do
  local asked = math.min(16, most - #rows)
  local found = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', asked)
  for _, row in ipairs(found) do
    size = size + #row[2][2]
    if size > most_bytes and #rows > 0 then return {rows, 0} end
    rows[#rows + 1] = row
    after = row[1]
  end
  if #found < asked then return {rows, 1} end
end
return {rows, 0}
