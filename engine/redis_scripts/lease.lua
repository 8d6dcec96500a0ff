-- Own, keep or give back a partition.
-- KEYS  1 lease   string: "<worker>:<fence>", expires
--       2 fence   string: number of the newest lease
--       3 clean   string: fence of the last lease that was given back in order
--       4 commit  string: number of the last commit
-- ARGV  1 "take" | "renew" | "release"   2 worker (take) or "<worker>:<fence>" (renew, release)   3 life in ms
-- Returns for take    {fence, "1" if the one before was given back in order else "0", last commit} or {} if it is owned
--         for renew   1 | 0      for release 1 | 0
if ARGV[1] == 'take' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return {} end
  local fence = redis.call('INCR', KEYS[2])
  local clean = tonumber(redis.call('GET', KEYS[3]) or '0')
  redis.call('SET', KEYS[1], ARGV[2] .. ':' .. fence, 'PX', ARGV[3])
  return {fence, clean == fence - 1 and '1' or '0', tonumber(redis.call('GET', KEYS[4]) or '0')}
end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
if ARGV[1] == 'renew' then return redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
redis.call('SET', KEYS[3], string.match(ARGV[2], '(%d+)$'))
return redis.call('DEL', KEYS[1])
