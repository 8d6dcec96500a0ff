-- What stands around a user's Lua script: the environment it sees, and its limits.
-- Called with settings and the chunks of lua_values.lua and lua_patterns.lua; returns compile(source), which gives
-- nil and a text, or run(packed) -> status, a, b.
-- Values cross the border as MessagePack text only, so that no object of the host is ever in reach of a script.
--
-- The script gets no setmetatable and no rawset: metatables bring __gc (runs without hooks), __close (restarts after
-- every error) and __len (endless loops inside C functions). It gets no coroutine: hooks are per coroutine.
-- A count hook stops Lua code, but not C functions: those that can take long are bounded here before they start.

local settings, values_chunk, patterns_chunk = ...
local BUDGET_S, RESULT_BYTES_MAX = settings.budget_s, settings.result_bytes_max
local HOOK_INSTRUCTIONS = 500
local LIST_MAX = 1000000 -- elements that a table function moves in one call
local SORT_MAX = 100000 -- elements that table.sort takes
local VALUES_MAX = 65536 -- values that unpack and byte give at once
local STRING_MAX = 4 << 20 -- bytes that string.rep makes

local byte, char, find, format, gmatch, gsub = string.byte, string.char, string.find, string.format, string.gmatch, string.gsub
local match, pack, rep, sub, unpack_bytes = string.match, string.pack, string.rep, string.sub, string.unpack
local concat, insert, move, remove, sort, unpack = table.concat, table.insert, table.move, table.remove, table.sort, table.unpack
local huge, min = math.huge, math.min
local clock, date, time = os.clock, os.date, os.time
local error, next, pcall, setmetatable, tostring, type = error, next, pcall, setmetatable, tostring, type
local getmetatable, rawlen, tonumber, xpcall, load = getmetatable, rawlen, tonumber, xpcall, load
local getinfo, sethook, host_metatable = debug.getinfo, debug.sethook, debug.getmetatable

local deadline, now_ms, wanted = huge, 0, nil

local function check()
  if clock() > deadline then error("time", 0) end
end

local bound_match = patterns_chunk(check)
local values = values_chunk(settings, check)
local decode, encode, refuse, null, LIST, WIDE =
  values.decode, values.encode, values.refuse, values.null, values.LIST, values.WIDE

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
  check()
  if wanted then error("retry", 0) end
  return ...
end

safe.pcall = function(f, ...) return passed(pcall(f, ...)) end

local strings = getmetatable("")
strings.__index = safe_string
strings.__metatable = false

local ENV = {__index = safe, __metatable = false}

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

local function work(main, packed)
  local call = decode(packed, 1)
  now_ms = call[4]
  local env = setmetatable({msg = call[1], metadata = call[2], msgType = call[3]}, ENV)
  -- An armed hook makes every instruction twice as dear, so the way in and out does without: it checks by itself.
  sethook(check, "", HOOK_INSTRUCTIONS)
  local result = main(env)
  sethook()
  if wanted then error("retry", 0) end
  local out = {}
  local n = encode(result, out, 0, 0)
  local text = concat(out, "", 1, n)
  if #text > RESULT_BYTES_MAX then refuse(0, "is larger than " .. RESULT_BYTES_MAX .. " bytes") end
  return text
end

local function finish(fine, result)
  sethook()
  local over = clock() > deadline
  deadline = huge
  if fine and not over then return "ok", result end
  if over then return "time", 0 end
  if wanted then return "retry", wanted.after_s, wanted.reason end
  local problem = result
  if type(result) == "table" then problem = result.problem end -- describe was not asked if memory ran out
  if problem == WIDE then return "wide", 0 end
  if problem == "not enough memory" then return "memory", 0 end
  if type(problem) == "table" and problem.refused then return "error", problem.refused, 0 end
  local text, line = text_of(problem)
  return "error", sub(text, 1, 1000), line or type(result) == "table" and result.line or 0
end

return function(source)
  -- On the first line, so that lines count as the user wrote them; a local _ENV makes every call's globals its own.
  local main, problem = load("local _ENV = ... " .. source, "=script", "t")
  if not main then return nil, problem end
  return function(packed)
    wanted = nil
    deadline = clock() + BUDGET_S
    return finish(xpcall(work, describe, main, packed))
  end
end
