-- What stands around a user's Lua script: the environment it sees, and its limits.
-- Called with settings and the chunks of lua_values.lua, lua_patterns.lua and lua_environment.lua; returns
-- compile(source), which gives nil and a text, or run(packed, count) -> packed results, how many, then four values for
-- each failure (below).
-- A chunk of messages is decoded, run and encoded in three passes: what is done once per chunk is not done per message,
-- and the count hook, which makes every instruction twice as dear, is armed for the users' code alone.
-- Values cross the border as MessagePack text only, so that no object of the host is ever in reach of a script.

local settings, values_chunk, patterns_chunk, environment_chunk = ...
local BUDGET_S, RESULT_BYTES_MAX = settings.budget_s, settings.result_bytes_max
local HOOK_INSTRUCTIONS = 500
local SLICE_S = 0.05 -- processor time after which a chunk is left, to go on after the host's sign of progress

local gsub, match, sub = string.gsub, string.match, string.sub
local concat, unpack = table.concat, table.unpack
local clock = os.clock
local error, load, pcall, rawset, setmetatable = error, load, pcall, rawset, setmetatable
local tonumber, tostring, type, xpcall = tonumber, tostring, type, xpcall
local getinfo, sethook = debug.getinfo, debug.sethook

local now_ms = 0
local deadline -- of the message in hand; nil until its first check: most messages end without one, and ask no clock
local slice_end, pause -- of the chunk
local wanted -- what the message in hand gave to retry

-- Everything that can take long comes by here, early enough that what went before does not count.
local function check()
  local at = clock()
  if deadline then
    if at > deadline then error("time", 0) end
    return
  end
  deadline = at + BUDGET_S
  if not slice_end then
    slice_end = at + SLICE_S
  elseif at > slice_end then
    pause = true
  end
end

local values = values_chunk(settings, check)
local decode, encode_result, header, null = values.decode, values.encode_result, values.header, values.null

local safe = environment_chunk({
  check = check,
  -- After the deadline, or after retry, no pcall holds an error back.
  passed = function(...)
    if deadline then check() end
    if wanted then error("retry", 0) end
    return ...
  end,
  now_ms = function() return now_ms end,
  ask_retry = function(seconds, reason)
    wanted = {after_s = seconds, reason = reason}
    error("retry", 0)
  end,
  bound_match = patterns_chunk(check),
  null = null,
  LIST = values.LIST,
})

-- Messages share an environment for as long as none has made a global in it: `msg`, `metadata` and `msgType` are set
-- anew for each, and there is no other way to leave something behind (no rawset, no setmetatable).
local env, dirty = nil, true

local ENV = {
  __index = safe,
  __metatable = false,
  __newindex = function(t, key, value)
    dirty = true
    rawset(t, key, value)
  end,
}

-- Running --------------------------------------------------------------------------------------------------------

local function describe(problem)
  local line
  for level = 2, 30 do
    local info = getinfo(level, "Sl")
    if not info then break end
    if info.short_src == "script" and info.currentline > 0 then
      line = info.currentline
      break
    end
  end
  return {problem = problem, line = line}
end

local function text_of(problem)
  if type(problem) == "string" then
    local line, text = match(problem, "^script:(%d+): (.*)$")
    return text or gsub(problem, '^%[string "[^"]*"%]:%d+: ', ""), tonumber(line)
  end
  if type(problem) == "table" then
    local said = problem.message or problem.reason
    return type(said) == "string" and said or "an error object without a message", nil
  end
  return "error " .. tostring(problem), nil
end

local main -- the user's
local msgs, metadatas, types -- of the chunk; the latter two are nil if the source does not name them
local results, left = {}, {} -- by message: what it gave, and what it left of its time if it asked a clock
local at, last -- the message in hand, and the last one to be done
local out, filled, ends = {}, 0, {} -- pieces of the packed results, how many, and where each result ends
local failures, failed = {}, 0

-- Failures are told as index, status and two values: "error", text, line | "retry", seconds, reason | "time" | "memory".
local function add_failure(status, a, b)
  local n = failed
  failures[n + 1], failures[n + 2], failures[n + 3], failures[n + 4] = at - 1, status, a, b
  failed = n + 4
end

-- Takes down why the message in hand failed; true if the runtime is full of what it left behind. What the script raised
-- comes as describe made it; anything else is of this side: a value refused, or the end of time or memory.
local function fail(problem)
  results[at] = nil
  local asked = wanted
  wanted = nil
  if deadline and clock() > deadline then
    add_failure("time")
    return true
  end
  if asked then
    add_failure("retry", asked.after_s, asked.reason)
  elseif problem == "not enough memory" then
    add_failure("memory")
    return true
  elseif type(problem) == "table" and problem.refused then
    add_failure("error", problem.refused, 0)
  elseif type(problem) == "table" then
    local text, line = text_of(problem.problem)
    add_failure("error", sub(text, 1, 1000), line or problem.line or 0)
  else
    local text, line = text_of(problem)
    add_failure("error", sub(text, 1, 1000), line or 0)
  end
end

local function settle(i)
  if deadline then
    local rest = deadline - clock()
    if rest < 0 then error("time", 0) end
    left[i] = rest
  end
  if wanted then error("retry", 0) end
end

local function run_messages()
  for i = at, last do
    if pause then
      last = i - 1
      return
    end
    at, deadline = i, nil
    if dirty then env, dirty = setmetatable({msg = null, metadata = null, msgType = null}, ENV), false end
    env.msg = msgs[i]
    if metadatas then env.metadata = metadatas[i] end
    if types then env.msgType = types[i] end
    local result = main(env)
    if deadline or wanted then settle(i) end
    results[i] = result
  end
end

-- Not in reach of the hook: it checks by itself.
local function encode_results()
  for i = at, last do
    if pause then
      last = i - 1
      return
    end
    at = i
    local rest = left[i]
    if rest then
      deadline, left[i] = clock() + rest, nil
    else
      deadline = nil
    end
    filled = encode_result(results[i], out, filled)
    ends[i] = filled
  end
end

-- The packed results, none larger than it may be.
local function packed_results()
  out[1] = header(0x90, 15, 0xdc, last)
  local text = concat(out, "", 1, filled)
  if #text <= RESULT_BYTES_MAX then return text end
  local pieces = {out[1]}
  for i = 1, last do
    local piece = concat(out, "", i == 1 and 2 or ends[i - 1] + 1, ends[i])
    if #piece > RESULT_BYTES_MAX then
      at = i
      add_failure("error", "result is larger than " .. RESULT_BYTES_MAX .. " bytes", 0)
      piece = "\xc0"
    end
    pieces[i + 1] = piece
  end
  return concat(pieces)
end

local function work(packed, count)
  local given = decode(packed, 1)
  now_ms, msgs, metadatas, types = given[1], given[2], given[3], given[4]
  if metadatas == null then metadatas = nil end
  if types == null then types = nil end
  at, last, failed, slice_end, pause = 1, count, 0, nil, false
  while at <= last do
    sethook(check, "", HOOK_INSTRUCTIONS)
    local fine, problem = xpcall(run_messages, describe)
    sethook()
    if fine then break end
    if fail(problem) then last = at end
    at, deadline = at + 1, nil
    check() -- arming the hook began its count anew: failures in a row would never see it
  end
  at, filled, slice_end, pause = 1, 1, nil, false
  while at <= last do
    local fine, problem = pcall(encode_results)
    if fine then break end
    if fail(problem) then last = at end
    filled = filled + 1
    out[filled] = "\xc0"
    ends[at] = filled
    at = at + 1
  end
  deadline = nil
  return packed_results()
end

return function(source)
  -- On the first line, so that lines count as the user wrote them; a local _ENV is what a call's globals are.
  local problem
  main, problem = load("local _ENV = ... " .. source, "=script", "t")
  if not main then return nil, problem end
  -- Without packed results come nil and why the chunk as a whole could not be done: "wide", "memory" or a text.
  return function(packed, count)
    wanted, deadline = nil, nil
    local fine, text = pcall(work, packed, count)
    if not fine then sethook() end
    -- Nothing of these messages is to take memory from the next.
    msgs, metadatas, types, results, left, dirty, env = nil, nil, nil, {}, {}, true, nil
    if not fine or #text > 65536 then out = {} end
    if fine then return text, last, unpack(failures, 1, failed) end
    ends, failures = {}, {}
    if text == values.WIDE then return nil, "wide" end
    return nil, text == "not enough memory" and "memory" or tostring(text)
  end
end
