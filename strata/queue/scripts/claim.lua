-- Claim the next chunks that at least one job waits for, from several streams in order of priority.
--
-- KEYS[1]  the hash of all chunks that are queued or in flight
-- KEYS[2…] the streams, the one with the highest priority first
-- ARGV[1]  the consumer group
-- ARGV[2]  the consumer: the name of the worker
-- ARGV[3]  how many chunks to claim at most
-- @WAITERS@ the key of the set of waiting jobs, without the chunk's id at its end
--
-- Returns a list of {stream, message}. Returns the server's error (NOGROUP) if a consumer group does not exist.

local claims = {}
for i = 2, #KEYS do
  local answer = true
  -- Repeat the read while it finds messages: some of them may be discarded below, so that one read is not enough.
  while answer and #claims < tonumber(ARGV[3]) do
    -- One stream for each call, because COUNT limits each stream of a call and not their sum.
    answer = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3] - #claims, 'STREAMS', KEYS[i], '>')
    if answer and answer.err then return answer end
    for _, message in ipairs(answer and answer[1][2] or {}) do
      -- The message's first field is `id`, the chunk's id.
      local chunk_id = message[2][2]
      if redis.call('EXISTS', '@WAITERS@' .. chunk_id) == 1 then
        table.insert(claims, {KEYS[i], message})
      else
        -- All jobs that asked for the chunk were cancelled: remove its message and its entry.
        redis.call('XACK', KEYS[i], ARGV[1], message[1])
        redis.call('XDEL', KEYS[i], message[1])
        redis.call('HDEL', KEYS[1], chunk_id)
      end
    end
  end
end
return claims
