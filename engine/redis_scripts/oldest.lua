-- The first entry's id of each stream, "" for an empty one: without the entry, which may be large. Changes nothing.
-- KEYS  streams of one partition
local ids = {}
for i, key in ipairs(KEYS) do
  local row = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  ids[i] = row and row[1] or ''
end
return ids
