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
-- @RESERVING@, @LEDGER@  the beginnings of the names of the set of a key's jobs that may have open reservations, and of
--          ledgers
-- @ACTIVE@ the hash of unfinished jobs
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

-- Whether another job of the key may return money: it has open reservations, and goes on.
local function others_return()
  for _, job in ipairs(redis.call('SMEMBERS', '@RESERVING@' .. key)) do
    local name = '@LEDGER@' .. job
    local open = tonumber(redis.call('HGET', name, 'open') or '0')
    if open <= 0 or redis.call('HEXISTS', '@ACTIVE@', job) == 0 then
      redis.call('SREM', '@RESERVING@' .. key, job)
    elseif name ~= ledger then
      return true
    end
  end
  return false
end

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
    if sum + tonumber(ARGV[5]) - previous[2] > tonumber(quota) then
      return (others > 0 or others_return()) and 'later' or 'refused'
    end
    redis.call('SADD', '@RESERVING@' .. key, string.sub(ledger, #'@LEDGER@' + 1))
    redis.call('EXPIRE', '@RESERVING@' .. key, 2 * seconds)
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

-- The same for the money in the window of the key. An entry notes how much of it was counted in which pieces, as
-- PIECE:AMOUNT PIECE:AMOUNT …, the oldest first; what is given back is taken from the newest.
if quota then
  local field, more, counted = 'pieces:' .. ARGV[3], tonumber(ARGV[5]) - previous[2], {}
  for piece, amount in string.gmatch(redis.call('HGET', ledger, field) or '', '(%d+):(%d+)') do
    table.insert(counted, {piece, tonumber(amount)})
  end
  if more > 0 then
    local piece = string.format('%.0f', present(seconds))
    use(window, seconds, present(seconds), more)
    if #counted == 0 or counted[#counted][1] ~= piece then table.insert(counted, {piece, 0}) end
    counted[#counted][2] = counted[#counted][2] + more
  end
  while more < 0 and #counted > 0 do
    local last = counted[#counted]
    local less = math.min(last[2], -more)
    lessen(window, last[1], less)
    last[2], more = last[2] - less, more + less
    if last[2] == 0 then table.remove(counted) end
  end
  local notes = {}
  for _, one in ipairs(counted) do table.insert(notes, string.format('%s:%.0f', one[1], one[2])) end
  redis.call('HSET', ledger, field, table.concat(notes, ' '))
end

-- A settled entry is no longer an open reservation, unless another worker's entry has replaced it.
if ARGV[1] ~= 'reserve' and holder == ARGV[3] then
  redis.call('HDEL', ledger, holder_field)
  redis.call('HINCRBY', ledger, 'open', -1)
end
return 'granted'
