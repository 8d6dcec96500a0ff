"""What is done to a persistent session in one step, as scripts that Redis runs; `sessions` says what lies where."""

from __future__ import annotations

from typing import Final

# KEYS session queue index counter
# ARGV owner now_ms until_ms ttl_s member clean force max_sessions prefix announcement longest_s
# A ttl of 0: the session is not to be kept; a clean start: what there was is thrown away
OPEN: Final = """
local session, queue, index = KEYS[1], KEYS[2], KEYS[3]
local number = 0
if ARGV[10] ~= '' then
  number = redis.call('INCR', KEYS[4])
  redis.call('PUBLISH', 'rm:takeover', number .. ' ' .. ARGV[10])
end
local function forget()
  redis.call('DEL', session, queue)
  redis.call('ZREM', index, ARGV[5])
end
if ARGV[6] == '1' then
  forget()
  if ARGV[4] == '0' then return {number, 0, {}, {}} end
end
local owner, believed = redis.call('HGET', session, 'owner'), redis.call('HGET', session, 'until')
if owner and owner ~= ARGV[1] and ARGV[7] == '' and tonumber(believed or '0') > tonumber(ARGV[2]) then
  return {number, 1, {}, {}}
end
local found, queued = redis.call('HGETALL', session), redis.call('LRANGE', queue, 0, -1)
if ARGV[4] == '0' then
  forget()
  return {number, 0, found, queued}
end
redis.call('ZREMRANGEBYSCORE', index, '-inf', tonumber(ARGV[2]) - ARGV[11] * 1000)
if not redis.call('ZSCORE', index, ARGV[5]) and redis.call('ZCARD', index) >= tonumber(ARGV[8]) then
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  redis.call('DEL', ARGV[9] .. oldest, ARGV[9] .. oldest .. ':queue')
  redis.call('ZREM', index, oldest)
end
redis.call('HSET', session, 'owner', ARGV[1], 'until', ARGV[3])
redis.call('ZADD', index, ARGV[2], ARGV[5])
for _, key in ipairs({session, queue}) do redis.call('EXPIRE', key, ARGV[4]) end
redis.call('EXPIRE', index, ARGV[11])
return {number, 0, found, queued}
"""

# KEYS session; ARGV owner ttl_s, then pairs of field and value, an empty value deleting the field
APPLY: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

# KEYS session queue index; ARGV owner ttl_s release replace now_ms member, then the queue. A ttl of 0: it goes for good
LEAVE: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[6])
  return 1
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[2])
  for i = 7, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
end
if ARGV[3] == '1' then
  redis.call('HDEL', KEYS[1], 'owner', 'until')
  redis.call('HSET', KEYS[1], 'left', ARGV[5])
end
redis.call('HSET', KEYS[1], 'kept', '1')
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""

# KEYS session queue index; ARGV owner now_ms until_ms ttl_s member longest_s
BEAT: Final = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[5])
for _, key in ipairs({KEYS[1], KEYS[2]}) do redis.call('EXPIRE', key, ARGV[4]) end
redis.call('EXPIRE', KEYS[3], ARGV[6])
return 1
"""

# KEYS session queue; ARGV now_ms limit item. Answers how many were dropped, or -1 when the session is gone or connected
ENQUEUE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if tonumber(redis.call('HGET', KEYS[1], 'until') or '0') > tonumber(ARGV[1]) then return -1 end
local over = redis.call('RPUSH', KEYS[2], ARGV[3]) - ARGV[2]
if over > 0 then redis.call('LTRIM', KEYS[2], over, -1) end
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
return math.max(over, 0)
"""
