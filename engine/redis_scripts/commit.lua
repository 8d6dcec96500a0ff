-- End a batch: everything it did in this partition and the trim of what it read, or nothing.
-- KEYS  1 in       stream: entries not done yet
--       2 lease    string: "<worker>:<fence>" of the owner
--       3 commit   string: number of the last commit
--       4 points   stream: spool, points on their way to the store
--       5 spooled  string: bytes in the spool
--       6 commands hash: device -> last command id      (keys of single originators come with the commands below)
-- ARGV  1 "<worker>:<fence>"   2 number of this commit   3 first entry id to keep, "" to trim nothing
--       4.. commands: argument count, then the arguments. Plain Redis commands, or
--           @points <blob>                                               spool a batch of points
--           @command <cmd key> <tenant> <device> <blob> <expires ms> <most>   queue a command, numbered per device
--           @answer <answers key> <message id> <blob> <most> <keep ms>   keep the first answer to a message
-- Returns {"ok", id of the spooled points or ""} | {"done", ""} for a repeat | {"fenced", ""}
-- Additions first, trim last: at maxmemory Redis refuses the first write or none. No command may err in the middle:
-- the list comes from commit.py alone, a closed set, on keys that only we write.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {'fenced', ''} end
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
local number = tonumber(ARGV[2])
if number == last then return {'done', ''} end
if number ~= last + 1 then return {'fenced', ''} end
local spooled = ''
redis.call('SET', KEYS[3], ARGV[2])
local at = 4
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local name = ARGV[at + 1]
  if name == '@points' then
    spooled = redis.call('XADD', KEYS[4], '*', 'b', ARGV[at + 2])
    redis.call('INCRBY', KEYS[5], #ARGV[at + 2])
  elseif name == '@command' then
    local key, tenant, device = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local expires, most = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
    local id = redis.call('HINCRBY', KEYS[6], device, 1)
    redis.call('HSET', key, id, ARGV[at + 5])
    if redis.call('HLEN', key) > most then
      local oldest
      for _, known in ipairs(redis.call('HKEYS', key)) do
        local n = tonumber(known)
        if not oldest or n < oldest then oldest = n end
      end
      redis.call('HDEL', key, oldest)
    end
    local ttl = redis.call('PTTL', key)
    local now = redis.call('TIME')
    local left = expires - (tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
    if ttl < left then redis.call('PEXPIRE', key, math.max(left, 1)) end
    redis.call('PUBLISH', 'rm:bus', cmsgpack.pack({'command', tenant, device, id}))
  elseif name == '@answer' then
    local key, most = ARGV[at + 2], tonumber(ARGV[at + 5])
    if redis.call('HSETNX', key, ARGV[at + 3], ARGV[at + 4]) == 1 and redis.call('HLEN', key) > most then
      local oldest
      for _, known in ipairs(redis.call('HKEYS', key)) do
        if not oldest or known < oldest then oldest = known end
      end
      redis.call('HDEL', key, oldest)
    end
    redis.call('PEXPIRE', key, ARGV[at + 6])
  else
    redis.call(unpack(ARGV, at + 1, at + count))
  end
  at = at + count + 1
end
if ARGV[3] ~= '' then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[3]) end
return {'ok', spooled}
