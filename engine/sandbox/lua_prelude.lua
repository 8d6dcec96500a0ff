-- What stands around a user's Lua script: the environment it sees, its limits, and the way of values in and out.
-- Called with settings, returns compile(source) -> run | nil, text and run(packed) -> status, a, b.
-- Values cross the border as MessagePack text only, so that no object of the host is ever in reach of a script.
--
-- The script gets no setmetatable and no rawset: metatables bring __gc (runs without hooks), __close (restarts after
-- every error) and __len (endless loops inside C functions). It gets no coroutine: hooks are per coroutine.
-- A count hook stops Lua code, but not C functions: those that can take long are bounded here before they start.

local settings = ...
local BUDGET_S, RESULT_BYTES_MAX, DEPTH_MAX = settings.budget_s, settings.result_bytes_max, settings.depth_max
local HOOK_INSTRUCTIONS = 500
local LIST_MAX = 1000000 -- elements that a table function moves in one call
local SORT_MAX = 100000 -- elements that table.sort takes
local VALUES_MAX = 65536 -- values that unpack and byte give at once
local STEPS_MAX = 20000000 -- steps of a pattern match at worst, some 0.1 s
local STRING_MAX = 4 << 20 -- bytes that string.rep makes

local byte, char, find, format, gmatch, gsub = string.byte, string.char, string.find, string.format, string.gmatch, string.gsub
local match, pack, rep, sub, unpack_bytes = string.match, string.pack, string.rep, string.sub, string.unpack
local concat, insert, move, remove, sort, unpack = table.concat, table.insert, table.move, table.remove, table.sort, table.unpack
local huge, math_type, min = math.huge, math.type, math.min
local clock, date, time = os.clock, os.date, os.time
local error, next, pcall, setmetatable, tostring, type = error, next, pcall, setmetatable, tostring, type
local getmetatable, rawlen, tonumber, xpcall, load = getmetatable, rawlen, tonumber, xpcall, load
local getinfo, sethook, host_metatable = debug.getinfo, debug.sethook, debug.getmetatable
local utf8_len = utf8.len

-- Time -----------------------------------------------------------------------------------------------------------

local deadline, now_ms, wanted = huge, 0, nil

local function check()
  if clock() > deadline then error("time", 0) end
end

-- Values in ------------------------------------------------------------------------------------------------------

local LIST = {__metatable = false, __name = "list"} -- marks what is a list even when it is empty
local null = setmetatable({}, {
  __metatable = false,
  __name = "null",
  __tostring = function() return "null" end,
  __newindex = function() error("null has no members", 0) end,
})

local WIDE = {} -- raised for an integer beyond 64 bits
local decode

local function decode_map(s, i, n)
  local t = {}
  for _ = 1, n do
    local k, v
    k, i = decode(s, i)
    v, i = decode(s, i)
    t[k] = v
  end
  return t, i
end

local function decode_list(s, i, n)
  local t = setmetatable({}, LIST)
  for j = 1, n do t[j], i = decode(s, i) end
  return t, i
end

local DECODE = {
  [0xc0] = function(_, i) return null, i end,
  [0xc2] = function(_, i) return false, i end,
  [0xc3] = function(_, i) return true, i end,
  [0xca] = function(s, i) return unpack_bytes(">f", s, i) end,
  [0xcb] = function(s, i) return unpack_bytes(">d", s, i) end,
  [0xcc] = function(s, i) return unpack_bytes(">I1", s, i) end,
  [0xcd] = function(s, i) return unpack_bytes(">I2", s, i) end,
  [0xce] = function(s, i) return unpack_bytes(">I4", s, i) end,
  [0xcf] = function(s, i)
    local v, j = unpack_bytes(">i8", s, i)
    if v < 0 then error(WIDE, 0) end
    return v, j
  end,
  [0xd0] = function(s, i) return unpack_bytes(">i1", s, i) end,
  [0xd1] = function(s, i) return unpack_bytes(">i2", s, i) end,
  [0xd2] = function(s, i) return unpack_bytes(">i4", s, i) end,
  [0xd3] = function(s, i) return unpack_bytes(">i8", s, i) end,
  [0xd9] = function(s, i) return unpack_bytes(">s1", s, i) end,
  [0xda] = function(s, i) return unpack_bytes(">s2", s, i) end,
  [0xdb] = function(s, i) return unpack_bytes(">s4", s, i) end,
  [0xdc] = function(s, i) local n, j = unpack_bytes(">I2", s, i) return decode_list(s, j, n) end,
  [0xdd] = function(s, i) local n, j = unpack_bytes(">I4", s, i) return decode_list(s, j, n) end,
  [0xde] = function(s, i) local n, j = unpack_bytes(">I2", s, i) return decode_map(s, j, n) end,
  [0xdf] = function(s, i) local n, j = unpack_bytes(">I4", s, i) return decode_map(s, j, n) end,
}

function decode(s, i)
  local b = byte(s, i)
  if b < 0x80 then return b, i + 1 end
  if b < 0x90 then return decode_map(s, i + 1, b - 0x80) end
  if b < 0xa0 then return decode_list(s, i + 1, b - 0x90) end
  if b < 0xc0 then
    local last = i + b - 0xa0
    return sub(s, i + 1, last), last + 1
  end
  if b >= 0xe0 then return b - 256, i + 1 end
  return DECODE[b](s, i + 1)
end

-- Values out -----------------------------------------------------------------------------------------------------

local path = {}

local function place(depth)
  local text = "result"
  for i = 1, depth do
    local key = path[i]
    if type(key) == "string" then
      if #key > 40 then key = sub(key, 1, 40) .. "…" end
      text = i == 1 and key or text .. "." .. key
    else
      text = text .. "[" .. tostring(key) .. "]"
    end
  end
  return text
end

local function refuse(depth, text) error({refused = place(depth) .. " " .. text}, 0) end

local function header(short, short_max, wide, n)
  if n <= short_max then return char(short + n) end
  if n <= 0xffff then return pack(">BI2", wide, n) end
  return pack(">BI4", wide + 1, n)
end

local function encode_text(v, out, n, depth)
  if not utf8_len(v) then refuse(depth, "is not UTF-8 text") end
  local size = #v
  out[n + 1] = size > 31 and size < 256 and char(0xd9, size) or header(0xa0, 31, 0xda, size)
  out[n + 2] = v
  return n + 2
end

-- Keys come again with every message, so their encoded form is kept.
local keys, key_count = {}, 0

local function encode_key(k, out, n, depth)
  local known = keys[k]
  if known then
    out[n + 1] = known
    return n + 1
  end
  local last = encode_text(k, out, n, depth)
  if #k < 32 then
    if key_count >= 512 then keys, key_count = {}, 0 end
    keys[k], key_count = out[n + 1] .. k, key_count + 1
  end
  return last
end

local encode

local function encode_list(t, out, n, depth)
  local size = rawlen(t)
  out[n + 1] = header(0x90, 15, 0xdc, size)
  n = n + 1
  for i = 1, size do
    local v = t[i]
    path[depth + 1] = i
    if v == nil then refuse(depth + 1, "is nil: a list may not have holes, use null") end
    n = encode(v, out, n, depth + 1)
  end
  local members = 0
  for _ in next, t do members = members + 1 end
  if members ~= size then refuse(depth, "is a list with holes or with other keys: use null, or only text keys") end
  return n
end

local function encode_map(t, out, n, depth)
  local at, members = n + 1, 0
  n = at
  for k, v in next, t do
    path[depth + 1] = k
    if type(k) ~= "string" then
      refuse(depth, "has the key " .. tostring(k) .. ": keys are text, or 1, 2, 3 … without holes")
    end
    n = encode_key(k, out, n, depth + 1)
    n = encode(v, out, n, depth + 1)
    members = members + 1
  end
  out[at] = header(0x80, 15, 0xde, members)
  return n
end

function encode(v, out, n, depth)
  local kind = type(v)
  if kind == "number" then
    if math_type(v) == "float" then
      if v ~= v or v == huge or v == -huge then refuse(depth, "is " .. tostring(v) .. ", which is not a JSON number") end
      out[n + 1] = pack(">Bd", 0xcb, v)
    elseif v >= 0 and v < 128 then
      out[n + 1] = char(v)
    else
      out[n + 1] = pack(">Bi8", 0xd3, v)
    end
    return n + 1
  end
  if kind == "string" then return encode_text(v, out, n, depth) end
  if kind == "boolean" then
    out[n + 1] = v and "\xc3" or "\xc2"
    return n + 1
  end
  if v == nil or v == null then
    out[n + 1] = "\xc0"
    return n + 1
  end
  if kind ~= "table" then refuse(depth, "is a " .. kind) end
  if depth >= DEPTH_MAX then
    depth = min(depth, 4)
    refuse(depth, "is nested deeper than " .. DEPTH_MAX .. " levels, or contains itself")
  end
  if n > 1000 then
    check()
    if n > RESULT_BYTES_MAX then refuse(0, "is larger than " .. RESULT_BYTES_MAX .. " bytes") end
  end
  if rawlen(v) > 0 or host_metatable(v) == LIST then return encode_list(v, out, n, depth) end
  return encode_map(v, out, n, depth)
end

-- Patterns -------------------------------------------------------------------------------------------------------
-- A match backtracks inside C where no hook fires. Its cost at worst is estimated beforehand from the pattern: a
-- repeated class whose next item cannot begin with a character of the class has only one way to end; any other tries
-- all. The estimate is exact for the usual separators and refuses what would run away.

local function class_end(p, i)
  local c = byte(p, i)
  if c == 37 then return i + 2 end -- %x
  if c ~= 91 then return i + 1 end -- not [
  i = i + 1
  if byte(p, i) == 94 then i = i + 1 end
  repeat
    c = byte(p, i)
    if not c then error("malformed pattern (missing ']')", 0) end
    i = i + (c == 37 and 2 or 1)
  until byte(p, i) == 93
  return i + 1
end

local function members(class)
  local set = {}
  for c = 0, 255 do
    if find(char(c), class) then set[c] = true end
  end
  return set
end

local function meet(a, b)
  for c in next, a do
    if b[c] then return true end
  end
  return false
end

-- Items of a pattern: {kind, class text}; kinds: "one", "*", "+", "-", "?", "end" ($), "scan" (%b, %1), "free" (%f).
local function items_of(p)
  local items, i, n = {}, 1, #p
  local anchored = byte(p, 1) == 94
  if anchored then i = 2 end
  while i <= n do
    local c, after = byte(p, i), byte(p, i + 1)
    if c == 40 or c == 41 then
      i = i + 1
    elseif c == 36 and i == n then
      items[#items + 1] = {kind = "end"}
      i = i + 1
    elseif c == 37 and after == 98 then
      items[#items + 1] = {kind = "scan"}
      i = i + 4
    elseif c == 37 and after == 102 then
      items[#items + 1] = {kind = "free"}
      i = class_end(p, i + 2)
    elseif c == 37 and after and after >= 48 and after <= 57 then
      items[#items + 1] = {kind = "scan"}
      i = i + 2
    else
      local stop = class_end(p, i)
      local mark = sub(p, stop, stop)
      local repeated = mark ~= "" and find("*+-?", mark, 1, true)
      items[#items + 1] = {kind = repeated and mark or "one", class = sub(p, i, stop - 1)}
      i = stop + (repeated and 1 or 0)
    end
  end
  return items, anchored
end

-- Can what follows item `at` begin with a character of `set`? What matches nothing is looked through.
local function overlaps(items, at, set)
  for i = at + 1, #items do
    local item = items[i]
    if item.kind == "end" then return false end
    if not item.class then return true end
    item.set = item.set or members(item.class)
    if meet(set, item.set) then return true end
    if item.kind == "one" or item.kind == "+" then return false end
  end
  return false -- nothing more is asked for: whatever was taken is a match
end

local shapes, shape_count = {}, 0

-- For each item, from the last to the first: how it multiplies ("all", "two") or adds ("text", 1) to the work.
local function shape_of(p)
  local shape = shapes[p]
  if shape then return shape end
  local items, anchored = items_of(p)
  shape = {anchored = anchored}
  for i = #items, 1, -1 do
    local item = items[i]
    local step = 1
    if item.kind == "scan" then
      step = "text"
    elseif item.kind ~= "one" and item.class then
      if i < #items then -- the last repetition always matches, so what it took is never gone over again
        item.set = item.set or members(item.class)
        if overlaps(items, i, item.set) then
          step = item.kind == "?" and "two" or "all"
        else
          step = item.kind == "?" and 1 or "text"
        end
      end
    end
    shape[#shape + 1] = step
  end
  if shape_count >= 256 then shapes, shape_count = {}, 0 end
  shapes[p], shape_count = shape, shape_count + 1
  return shape
end

local function steps_of(p, size, everywhere)
  local shape = shape_of(p)
  local steps = 1.0 -- a float: an integer would wrap around
  for i = 1, #shape do
    local step = shape[i]
    if step == 1 then
      steps = steps + 1
    elseif step == "text" then
      steps = steps + size
    elseif step == "two" then
      steps = steps * 2
    else
      steps = steps * size + size
    end
  end
  return shape.anchored and not everywhere and steps or steps * (size + 1)
end

local function bound_match(s, p, plain, everywhere)
  if type(s) == "number" then s = tostring(s) end
  if type(p) == "number" then p = tostring(p) end
  if type(s) ~= "string" or type(p) ~= "string" then return end -- the function itself says what is wrong
  local size = #s
  if #p > 1024 and (plain or not find(p, "[%^%$%*%+%?%.%(%[%%%-]")) or plain then
    if size * #p > STEPS_MAX * 10 then error("searching so long a text is too costly", 0) end
    if size > 4096 then check() end
    return
  end
  if #p > 1024 then error("pattern is longer than 1024 bytes", 0) end
  local fine, steps = pcall(steps_of, p, size, everywhere)
  if not fine then
    check()
    return -- malformed: the function itself says how
  end
  if steps > STEPS_MAX then
    error("pattern too costly for a text of " .. size .. " bytes: anchor it with ^ or cut the text", 0)
  end
  if steps > 10000 then check() end
end

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
