-- What a user's Lua script sees: functions that are harmless, each bounded where it can take long.
-- Called with host, a table of: check() (raises after the deadline), passed(...) (what pcall gave, if it may go on),
-- now_ms(), ask_retry(seconds, reason), bound_match (lua_patterns.lua), null and LIST (lua_values.lua); returns the
-- table of globals, and makes texts index its `string`.
--
-- The script gets no setmetatable and no rawset: metatables bring __gc (runs without hooks), __close (restarts after
-- every error) and __len (endless loops inside C functions). It gets no coroutine: hooks are per coroutine.
-- A count hook stops Lua code, but not C functions: those that can take long are bounded here before they start.

local host = ...
local check, passed, now_ms, ask_retry, bound_match, null, LIST =
  host.check, host.passed, host.now_ms, host.ask_retry, host.bound_match, host.null, host.LIST
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
local getmetatable, rawlen, tonumber = getmetatable, rawlen, tonumber
local host_metatable = debug.getmetatable

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
    return date(f or "%c", t or now_ms() // 1000)
  end,
  time = function(t)
    if t == nil then return now_ms() // 1000 end
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
  now = now_ms,
  -- A list even when it is empty, where {} alone is an object.
  list = function(t)
    t = t or {}
    if type(t) ~= "table" or host_metatable(t) and host_metatable(t) ~= LIST then error("list takes a table", 0) end
    return setmetatable(t, LIST)
  end,
  retry = function(after_s, reason)
    local seconds = tonumber(after_s)
    if after_s ~= nil and not seconds then error("retry takes seconds and a reason", 0) end
    ask_retry(seconds, sub(tostring(reason or ""), 1, 1000))
  end,
  pcall = function(f, ...) return passed(pcall(f, ...)) end,
}

local strings = getmetatable("")
strings.__index = safe_string
strings.__metatable = false

return safe
