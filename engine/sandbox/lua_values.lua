-- Values in and out of a user's Lua script, as MessagePack text.
-- Called with settings and check() (raises after the deadline); returns decode, encode_result
-- (of a message's result), header (of a list) and the values that they know.

local settings, check = ...
local RESULT_BYTES_MAX, DEPTH_MAX = settings.result_bytes_max, settings.depth_max

local byte, char, pack, sub, unpack_bytes = string.byte, string.char, string.pack, string.sub, string.unpack
local math_type, min = math.type, math.min
local error, next, setmetatable, tostring, type = error, next, setmetatable, tostring, type
local host_metatable, utf8_len = debug.getmetatable, utf8.len

local LIST = {__metatable = false, __name = "list"} -- marks what is a list even when it is empty
local null = setmetatable({}, {
  __metatable = false,
  __name = "null",
  __tostring = function() return "null" end,
  __newindex = function() error("null has no members", 0) end,
})

local WIDE = {} -- raised for an integer beyond 64 bits
local decode

-- Empty tables with room for so many members: one that grows member by member is laid out anew at 1, 2, 4, 8 …
-- A nil in a constructor makes room and no member.
local function of_2() return {a = nil, b = nil} end
local function of_4() return {a = nil, b = nil, c = nil, d = nil} end
local function of_8() return {a = nil, b = nil, c = nil, d = nil, e = nil, f = nil, g = nil, h = nil} end
local ROOM = {of_2, of_2, of_4, of_4, of_8, of_8, of_8, of_8}

-- The usual keys and values (short texts, floats, small integers) are read in place: a call costs as much as they do.
local function decode_map(s, i, n)
  local room = ROOM[n]
  local t = room and room() or {}
  for _ = 1, n do
    local k
    local b = byte(s, i)
    if b >= 0xa0 and b < 0xc0 then
      local last = i + b - 0xa0
      k, i = sub(s, i + 1, last), last + 1
    else
      k, i = decode(s, i)
    end
    b = byte(s, i)
    if b == 0xcb then
      t[k], i = unpack_bytes(">d", s, i + 1)
    elseif b < 0x80 then
      t[k], i = b, i + 1
    elseif b >= 0xa0 and b < 0xc0 then
      local last = i + b - 0xa0
      t[k], i = sub(s, i + 1, last), last + 1
    else
      t[k], i = decode(s, i)
    end
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

local CHARS = {} -- one-byte texts: 0 to 127 are the small integers themselves, 0xa0 to 0xbf begin short texts
for code = 0, 255 do CHARS[code] = char(code) end

local function header(short, short_max, wide, n)
  if n <= short_max then return CHARS[short + n] end
  if n <= 0xffff then return pack(">BI2", wide, n) end
  return pack(">BI4", wide + 1, n)
end

local function encode_text(v, out, n, depth)
  if not utf8_len(v) then refuse(depth, "is not UTF-8 text") end
  local size = #v
  out[n + 1] = size < 32 and CHARS[0xa0 + size] or size < 256 and char(0xd9, size) or header(0xa0, 31, 0xda, size)
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

local base = 0 -- how many pieces of the output belong to earlier results
local encode

local function encode_list(t, out, n, depth)
  local size = #t
  n = n + 1
  out[n] = header(0x90, 15, 0xdc, size)
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
    local known = keys[k]
    if known then
      n = n + 1
      out[n] = known
    elseif type(k) == "string" then
      n = encode_key(k, out, n, depth + 1)
    else
      refuse(depth, "has the key " .. tostring(k) .. ": keys are text, or 1, 2, 3 … without holes")
    end
    n = encode(v, out, n, depth + 1)
    members = members + 1
  end
  out[at] = header(0x80, 15, 0xde, members)
  return n
end

function encode(v, out, n, depth)
  local number = math_type(v)
  if number == "float" then
    if v - v ~= 0 then refuse(depth, "is " .. tostring(v) .. ", which is not a JSON number") end
    out[n + 1] = pack(">Bd", 0xcb, v)
    return n + 1
  end
  if number then
    out[n + 1] = v >= 0 and v < 128 and CHARS[v] or pack(">Bi8", 0xd3, v)
    return n + 1
  end
  local kind = type(v)
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
  if n - base > 1000 then
    check()
    if n - base > RESULT_BYTES_MAX then refuse(0, "is larger than " .. RESULT_BYTES_MAX .. " bytes") end
  end
  -- No script can give a table a __len.
  if #v > 0 or host_metatable(v) == LIST then return encode_list(v, out, n, depth) end
  return encode_map(v, out, n, depth)
end

-- Appends the pieces of one result to out, which has n already; gives how many it has then.
local function encode_result(v, out, n)
  if v == true then
    out[n + 1] = "\xc3"
    return n + 1
  end
  if not v then
    out[n + 1] = v == nil and "\xc0" or "\xc2"
    return n + 1
  end
  base = n
  return encode(v, out, n, 0)
end

return {decode = decode, encode_result = encode_result, header = header, null = null, LIST = LIST, WIDE = WIDE}
