-- Use some of a quota: as many of several things, in order, as there is room for.
--
-- KEYS[1]  the window, see windows.lua
-- KEYS[2]  optional: the hash of what was counted by name: name -> PIECE:AMOUNT:WINDOW, the window's key. What it has is
--          not counted a second time.
-- ARGV[1]  the seconds of the window
-- ARGV[2]  how much may be used in it
-- ARGV[3…] the things as name, amount, name, amount …; none only reads
--
-- Returns how many of the things may be had; how much is left; after how many seconds the next thing fits, or, if there
-- is none, something is free again (-1: never); and how much this call has counted.

@WINDOWS@
local seconds, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local pieces, sum = read_window(KEYS[1], seconds)
local piece, had, added, missing, notes = present(seconds), 0, 0, nil, {}
for i = 3, #ARGV, 2 do
  local amount = tonumber(ARGV[i + 1])
  if not KEYS[2] or redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    if sum + added + amount > most then
      missing = amount
      break
    end
    added = added + amount
    table.insert(notes, ARGV[i])
    table.insert(notes, string.format('%.0f:%.0f:%s', piece, amount, KEYS[1]))
  end
  had = had + 1
end
if added > 0 then
  use(KEYS[1], seconds, piece, added)
  table.insert(pieces, {piece, added})
  if KEYS[2] then redis.call('HSET', KEYS[2], unpack(notes)) end
end
sum = sum + added

local after = -1
if not missing then
  after = freed_after(pieces, seconds, 1)
elseif missing <= most then
  after = freed_after(pieces, seconds, sum + missing - most)
end
return {had, string.format('%.0f', math.max(0, most - sum)), after, string.format('%.0f', added)}
