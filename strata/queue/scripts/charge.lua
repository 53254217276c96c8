-- Reserve a chunk's worst-case cost in a job's ledger, settle it with the actual cost, or restore what was settled before
-- the ledger was lost.
--
-- KEYS[1]  the job's ledger
-- ARGV[1]  `reserve`, `settle` or `restore`
-- ARGV[2]  the chunk's id
-- ARGV[3]  the name of the entry: one attempt of one worker at the chunk
-- ARGV[4…] the entry's numbers, one for each of @COUNTS@. The first two, tokens and money, are what the entry takes
--          from the budget; the others are the usage as far as it is known.
-- @COUNTS@ the names of the ledger's sums, as Lua strings
-- @QUOTAS@ the hash of what keys may spend in SECONDS (a placeholder too), by their ids
-- @USED@   the beginning of the names of their windows, see windows.lua; the id follows
--
-- Returns `granted`, `refused`, or `later` if the cost does not fit now but may fit when other chunks are settled.

@WINDOWS@
local ledger, holder_field, entry_field = KEYS[1], 'holds:' .. ARGV[2], 'entry:' .. ARGV[3]
local function number(name) return tonumber(redis.call('HGET', ledger, name) or '0') end
local names, previous, index = {@COUNTS@}, {0, 0, 0, 0, 0, 0}, 0

-- Read the entry's previous numbers. A repeated call replaces them, so that it counts once.
for word in string.gmatch(redis.call('HGET', ledger, entry_field) or '', '%d+') do
  index = index + 1
  previous[index] = tonumber(word)
end

-- The window of the key that made the job, if it may spend so much a day only. What is restored was spent earlier, and
-- nobody knows when: it does not count in a window, which begins anew when Redis was emptied.
local key, quota = redis.call('HGET', ledger, 'key'), nil
if key and ARGV[1] ~= 'restore' then quota = redis.call('HGET', '@QUOTAS@', key) end
local window, seconds = '@USED@' .. (key or ''), @SECONDS@

-- Count the other chunks with an open reservation: they may return budget when they are settled.
local holder, others = redis.call('HGET', ledger, holder_field), number('open')
if holder then others = others - 1 end

if ARGV[1] ~= 'reserve' then
  -- Without a ledger there is nothing to settle: Redis was emptied, and the bill in the part's footer restores the sum.
  if redis.call('EXISTS', ledger) == 0 then return 'refused' end
else
  -- Wait for the limits: the job's ledger has not been opened (again) yet.
  local tokens, money = redis.call('HGET', ledger, 'limit:tokens'), redis.call('HGET', ledger, 'limit:money')
  if not tokens or not money then return 'later' end
  if tokens ~= '' or money ~= '' then
    -- A limit can be checked only while the ledger holds everything that the job has spent.
    if redis.call('HEXISTS', ledger, 'known') == 0 then return 'later' end
    -- Compare the sums with this entry's new numbers in place of its previous ones to both limits.
    local over = tokens ~= '' and number('tokens') - previous[1] + tonumber(ARGV[4]) > tonumber(tokens)
    over = over or (money ~= '' and number('money') - previous[2] + tonumber(ARGV[5]) > tonumber(money))
    if over and others > 0 then return 'later' end
    if over then return 'refused' end
  end
  if quota then
    local _, sum = read_window(window, seconds)
    if sum + tonumber(ARGV[5]) - previous[2] > tonumber(quota) then return others > 0 and 'later' or 'refused' end
  end
  -- Make this entry the chunk's open reservation. Any entry before it belongs to a worker that lost the chunk.
  redis.call('HSET', ledger, holder_field, ARGV[3])
  if not holder then redis.call('HINCRBY', ledger, 'open', 1) end
end

-- Add the difference between the entry's new and previous numbers to the sums, and keep the new numbers.
for i, name in ipairs(names) do
  redis.call('HINCRBY', ledger, name, string.format('%.0f', tonumber(ARGV[3 + i]) - previous[i]))
end
redis.call('HSET', ledger, entry_field, table.concat(ARGV, ' ', 4))

-- The same for the money in the window of the key; what is given back is taken from where it was counted.
if quota then
  local piece_field, more = 'piece:' .. ARGV[3], tonumber(ARGV[5]) - previous[2]
  if more > 0 then
    redis.call('HSET', ledger, piece_field, present(seconds))
    use(window, seconds, present(seconds), more)
  elseif more < 0 then
    lessen(window, redis.call('HGET', ledger, piece_field) or '', -more)
  end
end

-- A settled entry is no longer an open reservation, unless another worker's entry has replaced it.
if ARGV[1] ~= 'reserve' and holder == ARGV[3] then
  redis.call('HDEL', ledger, holder_field)
  redis.call('HINCRBY', ledger, 'open', -1)
end
return 'granted'
