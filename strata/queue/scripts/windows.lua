-- Functions for other scripts: how much was used within a time up to now.
--
-- A window is a hash: the number of a piece of time -> how much was used in it. The time of a window has PIECES pieces;
-- a piece counts until all of it is older than the window, so that in no span of this length more is used than may be.
-- A window of 0 seconds has one piece and never ends.

local PIECES = @PIECES@
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

-- The number of the present piece of a window.
local function present(seconds)
  if seconds == 0 then return 0 end
  return math.floor(now * PIECES / seconds)
end

-- The pieces that count, the oldest first, each as {number, amount}, and their sum. Older ones are removed.
local function read_window(window, seconds)
  local flat, first = redis.call('HGETALL', window), 0
  if seconds > 0 then first = math.floor((now - seconds) * PIECES / seconds) end
  local pieces, sum = {}, 0
  for i = 1, #flat, 2 do
    local number, amount = tonumber(flat[i]), tonumber(flat[i + 1])
    if number < first then
      redis.call('HDEL', window, flat[i])
    else
      table.insert(pieces, {number, amount})
      sum = sum + amount
    end
  end
  table.sort(pieces, function(a, b) return a[1] < b[1] end)
  return pieces, sum
end

-- After how many seconds so much of what is used counts no longer; -1: never.
local function freed_after(pieces, seconds, amount)
  if seconds == 0 then return -1 end
  for _, piece in ipairs(pieces) do
    amount = amount - piece[2]
    if amount <= 0 then return math.max(1, math.ceil((piece[1] + 1) * seconds / PIECES + seconds - now)) end
  end
  return -1
end

-- Add to a piece of a window.
local function use(window, seconds, piece, amount)
  redis.call('HINCRBY', window, string.format('%.0f', piece), string.format('%.0f', amount))
  if seconds > 0 then redis.call('EXPIRE', window, math.ceil(seconds + seconds / PIECES) + 1) end
end

-- Take from a piece of a window; what counts no longer is not given back.
local function lessen(window, piece, amount)
  if redis.call('HEXISTS', window, piece) == 0 then return end
  if redis.call('HINCRBY', window, piece, string.format('%.0f', -amount)) <= 0 then redis.call('HDEL', window, piece) end
end
