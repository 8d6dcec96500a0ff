-- Values in and out of a user's Lua script, as MessagePack text.
-- Called with settings and check() (raises after the deadline); returns decode, encode and what they know by name.

local settings, check = ...
local RESULT_BYTES_MAX, DEPTH_MAX = settings.result_bytes_max, settings.depth_max

local byte, char, pack, sub, unpack_bytes = string.byte, string.char, string.pack, string.sub, string.unpack
local huge, math_type, min = math.huge, math.type, math.min
local error, next, rawlen, setmetatable, tostring, type = error, next, rawlen, setmetatable, tostring, type
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

return {decode = decode, encode = encode, refuse = refuse, null = null, LIST = LIST, WIDE = WIDE}
