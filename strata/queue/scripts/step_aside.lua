-- Let a chunk step aside: move it from its stream to the parked chunks of its fingerprint, which waits from now on.
--
-- KEYS[1]  the stream of the message
-- KEYS[2]  the hash of all chunks that are queued or in flight
-- KEYS[3]  the hash with the chunk's isolation notes
-- ARGV[1]  the message's id
-- ARGV[2]  the consumer group
-- ARGV[3]  the consumer
-- ARGV[4]  the chunk's id
-- ARGV[5]  the chunk's group
-- ARGV[6]  its fingerprint
-- ARGV[7]  its priority
-- ARGV[8]  the stage that does not work
-- ARGV[9]  the reason
-- ARGV[10] 1 if the stage's server refuses everything, else 0
-- ARGV[11] the pause that the server asks for, in ms
-- ARGV[12] the first pause in ms; it is doubled after each attempt
-- ARGV[13] the longest pause in ms
-- @RETURNED@ the field of a message whose chunk has stepped aside before
-- @CURRENT@ the field of the isolation notes for what is in flight
--
-- Returns the number of refusals in a row, or -1 with nothing changed if the consumer no longer holds the message.

@WAITS@
local group, fingerprint = ARGV[5], ARGV[6]
local waits, record = waits_key(group), waiting_key(group, fingerprint)

-- Fencing: a worker that was paused until its lease lapsed must not move a chunk that another worker has reclaimed.
if not is_held(KEYS[1], ARGV[2], ARGV[3], ARGV[1]) then return -1 end
local message = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]

-- A chunk that was claimed before its fingerprint began to wait does not count as an attempt.
local time, due = now(), redis.call('ZSCORE', waits, fingerprint)
local counts = not due or tonumber(due) <= time or redis.call('HGET', record, 'trial') == ARGV[4]

-- Park the chunk: one that counts before the others of its fingerprint, because it is the next to be tried. It stays in
-- the hash of queued chunks, with an empty message id, so that it is not queued twice.
if message then
  -- The mark tells its next holder, under whatever message it returns, that the chunk has been worked on.
  if not value_of(message[2], '@RETURNED@') then
    table.insert(message[2], '@RETURNED@')
    table.insert(message[2], '1')
  end
  redis.call(counts and 'LPUSH' or 'RPUSH', parked_key(group, fingerprint, ARGV[7]), cjson.encode(message[2]))
  redis.call('HSET', KEYS[2], ARGV[4], '')
end
remove(KEYS[1], ARGV[2], ARGV[1])

-- No worker has died: nothing of the chunk is in flight now.
redis.call('HDEL', KEYS[3], '@CURRENT@')

local refusals = tonumber(redis.call('HGET', record, 'refusals') or '0')
if not counts then return refusals end

-- Count the attempt, and set the time of the next one: the pause grows.
redis.call('HSETNX', record, 'since', time)
local attempts = redis.call('HINCRBY', record, 'attempts', 1)
local pause = math.min(tonumber(ARGV[12]) * 2 ^ math.min(attempts - 1, 30), tonumber(ARGV[13]))
pause = math.max(pause, tonumber(ARGV[11]))
refusals = ARGV[10] == '1' and refusals + 1 or 0
redis.call('HSET', record, 'stage', ARGV[8], 'reason', ARGV[9], 'refusals', refusals)
redis.call('HDEL', record, 'trial')
redis.call('ZADD', waits, string.format('%.0f', time + pause), fingerprint)
redis.call('SREM', returning_key(group), fingerprint)
return refusals
