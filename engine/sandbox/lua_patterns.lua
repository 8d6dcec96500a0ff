-- Bounds on pattern matching.
-- A match backtracks inside C where no hook fires. Its cost at worst is estimated beforehand from the pattern: a
-- repeated class whose next item cannot begin with a character of the class has only one way to end; any other tries
-- all. The estimate is exact for the usual separators and refuses what would run away.
-- Called with check() (raises after the deadline); returns bound_match(subject, pattern, plain, everywhere), which
-- raises when a match could take too long.

local check = ...
local STEPS_MAX = 20000000 -- steps of a match at worst, some 0.1 s

local byte, char, find, sub = string.byte, string.char, string.find, string.sub
local error, next, pcall, tostring, type = error, next, pcall, tostring, type

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

return bound_match
