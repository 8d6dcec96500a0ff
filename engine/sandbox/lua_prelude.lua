-- What stands around a user's Lua script: the environment it sees, and its limits.
-- Called with settings and the chunks of lua_values.lua and lua_patterns.lua; returns compile(source), which gives
-- nil and a text, or run(packed, count) -> packed results, how many, then four values for each failure (below).
-- A chunk of messages is decoded, run and encoded in three passes: what is done once per chunk is not done per message,
-- and the count hook, which makes every instruction twice as dear, is armed for the users' code alone.
-- Values cross the border as MessagePack text only, so that no object of the host is ever in reach of a script.
--
-- The script gets no setmetatable and no rawset: metatables bring __gc (runs without hooks), __close (restarts after
-- every error) and __len (endless loops inside C functions). It gets no coroutine: hooks are per coroutine.
-- A count hook stops Lua code, but not C functions: those that can take long are bounded here before they start.

local settings, values_chunk, patterns_chunk = ...
local BUDGET_S, RESULT_BYTES_MAX = settings.budget_s, settings.result_bytes_max
local HOOK_INSTRUCTIONS = 500
local SLICE_S = 0.05 -- processor time after which a chunk is left, to go on after the host's sign of progress
local LIST_MAX = 1000000 -- elements that a table function moves in one call
local SORT_MAX = 100000 -- elements that table.sort takes
local VALUES_MAX = 65536 -- values that unpack and byte give at once
local STRING_MAX = 4 << 20 -- bytes that string.rep makes

local byte, char, find, format, gmatch, gsub = string.byte, string.char, string.find, string.format, string.gmatch, string.gsub
local match, pack, rep, sub, unpack_bytes = string.match, string.pack, string.rep, string.sub, string.unpack
local concat, insert, move, remove, sort, unpack = table.concat, table.insert, table.move, table.remove, table.sort, table.unpack
local min = math.min
local clock, date, time = os.clock, os.date, os.time
local error, next, pcall, setmetatable, tostring, type = error, next, pcall, setmetatable, tostring, type
local getmetatable, rawlen, rawset, tonumber, xpcall, load = getmetatable, rawlen, rawset, tonumber, xpcall, load
local getinfo, sethook, host_metatable = debug.getinfo, debug.sethook, debug.getmetatable

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

local bound_match = patterns_chunk(check)
local values = values_chunk(settings, check)
local decode, encode_result, header, null, LIST, WIDE =
  values.decode, values.encode_result, values.header, values.null, values.LIST, values.WIDE

-- The environment ------------------------------------------------------------------------------------------------

local function sized(f)
  return function(s, ...)
    if type(s) == "string" and #s > 4096 then check() end
    return f(s, ...)
  end
end

local function read_only(name, members_of)
  return setmetatable({}, {
    __metatable = false,
    __name = name,
    __index = members_of,
    __newindex = function(_, key) error(name .. "." .. tostring(key) .. " cannot be set: " .. name .. " is read-only", 0) end,
  })
end

local function range(first, last, size, name)
  first, last = tonumber(first) or 1, tonumber(last) or size
  if last - (first + 0.0) >= VALUES_MAX then error(name .. " gives at most " .. VALUES_MAX .. " values at once", 0) end
  if last - first > 1000 then check() end
end

local safe_string = {
  char = char,
  len = string.len,
  lower = sized(string.lower),
  packsize = string.packsize,
  reverse = sized(string.reverse),
  sub = sized(sub),
  unpack = function(f, ...)
    if type(f) == "string" and #f > 4096 then error("format is longer than 4096 bytes", 0) end
    return unpack_bytes(f, ...)
  end,
  upper = sized(string.upper),
  byte = function(s, i, j)
    if j then
      local size = #tostring(s)
      local first, last = tonumber(i) or 1, min(tonumber(j) or size, size)
      range(first < 0 and size + first or first, last < 0 and size + last or last, size, "byte")
    end
    return byte(s, i, j)
  end,
  find = function(s, p, i, plain)
    bound_match(s, p, plain)
    return find(s, p, i, plain)
  end,
  format = function(f, ...)
    if type(f) == "string" and #f > 4096 then error("format is longer than 4096 bytes", 0) end
    return format(f, ...)
  end,
  gmatch = function(s, p, i)
    bound_match(s, p, false, true) -- here ^ is no anchor
    return gmatch(s, p, i)
  end,
  gsub = function(s, p, r, n)
    bound_match(s, p)
    return gsub(s, p, r, n)
  end,
  match = function(s, p, i)
    bound_match(s, p)
    return match(s, p, i)
  end,
  pack = function(f, ...)
    if type(f) == "string" and #f > 4096 then error("format is longer than 4096 bytes", 0) end
    return pack(f, ...)
  end,
  rep = function(s, n, separator)
    local size = #tostring(s) + (separator and #tostring(separator) or 0)
    local times = (tonumber(n) or 0) + 0.0 -- a float: an integer product would wrap around
    if size * times > STRING_MAX then error("rep makes at most " .. STRING_MAX .. " bytes", 0) end
    -- Empty texts cost a step each although they make nothing.
    if size == 0 and times > 1000 then return "" end
    if size * times > 4096 then check() end
    return rep(s, n, separator)
  end,
}

local function bounded(t, name, most)
  if type(t) ~= "table" then return end
  local size = rawlen(t)
  if size > most then error(name .. " takes at most " .. most .. " elements", 0) end
  if size > 256 then check() end
end

local safe_table = {
  concat = function(t, ...) bounded(t, "concat", LIST_MAX) return concat(t, ...) end,
  insert = function(t, ...) bounded(t, "insert", LIST_MAX) return insert(t, ...) end,
  remove = function(t, ...) bounded(t, "remove", LIST_MAX) return remove(t, ...) end,
  sort = function(t, ...) bounded(t, "sort", SORT_MAX) return sort(t, ...) end,
  pack = table.pack,
  move = function(a, f, e, ...)
    if (tonumber(e) or 0) - ((tonumber(f) or 0) + 0.0) > LIST_MAX then error("move takes at most " .. LIST_MAX .. " elements", 0) end
    bounded(a, "move", LIST_MAX)
    check()
    return move(a, f, e, ...)
  end,
  unpack = function(t, i, j)
    range(i, j, type(t) == "table" and rawlen(t) or 0, "unpack")
    return unpack(t, i, j)
  end,
}

local safe_math = {}
for name, member in next, math do safe_math[name] = member end
safe_math.randomseed = nil -- the generator is the runtime's: one message would choose another's numbers

local safe_utf8 = {
  char = utf8.char,
  charpattern = utf8.charpattern,
  codes = sized(utf8.codes),
  len = sized(utf8.len),
  offset = sized(utf8.offset),
  codepoint = function(s, i, j, lax)
    if j and #tostring(s) > VALUES_MAX then error("codepoint takes at most " .. VALUES_MAX .. " bytes", 0) end
    return utf8.codepoint(s, i, j, lax)
  end,
}

local safe_os = {
  clock = clock,
  difftime = os.difftime,
  date = function(f, t)
    if type(f) == "string" and #f > 256 then error("date format is longer than 256 bytes", 0) end
    return date(f or "%c", t or now_ms // 1000)
  end,
  time = function(t)
    if t == nil then return now_ms // 1000 end
    return time(t)
  end,
}

local safe = {
  assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, select = select,
  tonumber = tonumber, tostring = tostring, type = type, null = null, _VERSION = _VERSION,
  string = read_only("string", safe_string),
  table = read_only("table", safe_table),
  math = read_only("math", safe_math),
  utf8 = read_only("utf8", safe_utf8),
  os = read_only("os", safe_os),
  now = function() return now_ms end,
  -- A list even when it is empty, where {} alone is an object.
  list = function(t)
    t = t or {}
    if type(t) ~= "table" or host_metatable(t) and host_metatable(t) ~= LIST then error("list takes a table", 0) end
    return setmetatable(t, LIST)
  end,
  retry = function(after_s, reason)
    local seconds = tonumber(after_s)
    if after_s ~= nil and not seconds then error("retry takes seconds and a reason", 0) end
    wanted = {after_s = seconds, reason = sub(tostring(reason or ""), 1, 1000)}
    error("retry", 0)
  end,
}

-- After the deadline, or after retry, no pcall holds an error back.
local function passed(...)
  if deadline then check() end
  if wanted then error("retry", 0) end
  return ...
end

safe.pcall = function(f, ...) return passed(pcall(f, ...)) end

local strings = getmetatable("")
strings.__index = safe_string
strings.__metatable = false

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

-- Takes down why the message in hand failed; true if the runtime is full of what it left behind.
local function fail(problem, line)
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
  else
    local text, told = text_of(problem)
    add_failure("error", sub(text, 1, 1000), told or line or 0)
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
    local full
    if type(problem) == "table" then
      full = fail(problem.problem, problem.line)
    else
      full = fail(problem) -- describe was not asked if memory ran out
    end
    if full then last = at end
    at = at + 1
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
    sethook()
    -- Nothing of these messages is to take memory from the next.
    msgs, metadatas, types, results, dirty, env = nil, nil, nil, {}, true, nil
    if not fine or #text > 65536 then out = {} end
    if fine then return text, last, unpack(failures, 1, failed) end
    left, ends, failures = {}, {}, {}
    if text == WIDE then return nil, "wide" end
    return nil, text == "not enough memory" and "memory" or tostring(text)
  end
end
