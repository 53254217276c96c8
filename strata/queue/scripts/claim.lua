-- Claim the next chunks that at least one job waits for, of several priorities in their order, callers in turn.
--
-- Chunks whose fingerprint waits for a stage are parked instead. When the pause of a fingerprint is over, one of its
-- parked chunks is claimed as a trial. When a fingerprint no longer waits, its parked chunks return to their streams.
--
-- KEYS[1]  the hash of all chunks that are queued or in flight
-- KEYS[2…] the streams, the one with the highest priority first
-- ARGV[1]  the consumer group
-- ARGV[2]  the consumer: the name of the worker
-- ARGV[3]  how many chunks to claim at most
-- ARGV[4]  the group
-- ARGV[5]  how many chunks to move or to remove at most; the following calls do the rest
-- ARGV[6]  after so many ms it is looked whether a trial still goes on
-- ARGV[7…] for each stream: its priority, and the stream of trials of this priority
--
-- Returns a list of {stream, message}. Returns the server's error (NOGROUP) if a consumer group does not exist.

@WAITS@
local queued, group, most = KEYS[1], ARGV[4], tonumber(ARGV[3])
local waits, returning = waits_key(group), returning_key(group)
local claims, room = {}, tonumber(ARGV[5])

-- The stream of trials of each priority that the caller asks for.
local trials = {}
for i = 2, #KEYS do trials[ARGV[2 * i + 3]] = ARGV[2 * i + 4] end

-- Take the oldest parked chunk that a job waits for, and remove those without jobs before it.
local function unpark(fingerprint, priority)
  while room > 0 do
    local packed = redis.call('LPOP', parked_key(group, fingerprint, priority))
    if not packed then return nil end
    room = room - 1
    local fields = cjson.decode(packed)
    if is_wanted(fields[2]) then return fields end
    redis.call('HDEL', queued, fields[2])
  end
end

-- Claim a parked chunk as a trial: its message is added to the stream of trials and read in the same moment.
local function try(fingerprint, fields, priority)
  redis.pcall('XGROUP', 'CREATE', trials[priority], ARGV[1], '0', 'MKSTREAM')
  local id = redis.call('XADD', trials[priority], '*', unpack(fields))
  redis.call('HSET', queued, fields[2], id)
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', trials[priority], '>')
  table.insert(claims, {trials[priority], answer[1][2][1]})
  redis.call('HSET', waiting_key(group, fingerprint), 'trial', fields[2])
end

-- Try one chunk of each waiting fingerprint whose pause is over, unless a trial goes on.
local function try_due()
  local time = now()
  for _, fingerprint in ipairs(redis.call('ZRANGEBYSCORE', waits, '-inf', time, 'LIMIT', 0, 100)) do
    if #claims >= most or room <= 0 then return end
    local record, left = waiting_key(group, fingerprint), 0
    local trial = redis.call('HGET', record, 'trial')
    local message = trial and redis.call('HGET', queued, trial)
    local tried = message and message ~= ''
    for _, priority in ipairs({'hi', 'lo'}) do
      if not tried and trials[priority] then
        local fields = unpark(fingerprint, priority)
        if fields then
          try(fingerprint, fields, priority)
          tried = true
        end
      end
      left = left + redis.call('LLEN', parked_key(group, fingerprint, priority))
    end
    if tried then
      redis.call('ZADD', waits, string.format('%.0f', time + tonumber(ARGV[6])), fingerprint)
    elseif left == 0 then
      -- The jobs of all its chunks were cancelled.
      redis.call('DEL', record)
      redis.call('ZREM', waits, fingerprint)
    end
  end
end

-- Bring the parked chunks of fingerprints that no longer wait back to their lanes.
for _, fingerprint in ipairs(redis.call('SRANDMEMBER', returning, 10)) do
  for _, priority in ipairs({'hi', 'lo'}) do
    local fields = unpark(fingerprint, priority)
    while fields do
      queue_chunk(group, priority, fields, queued)
      fields = unpark(fingerprint, priority)
    end
  end
  if room > 0 then redis.call('SREM', returning, fingerprint) end
end

try_due()
local anything_waits = redis.call('EXISTS', waits) == 1
for i = 2, #KEYS do
  local answer, priority = true, ARGV[2 * i + 3]
  -- Repeat the read while it finds messages: some of them may be removed below, so that one read is not enough.
  while answer and #claims < most and room > 0 do
    room = move_on(group, priority, most - #claims, room, queued)
    -- One stream for each call, because COUNT limits each stream of a call and not their sum.
    answer = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', most - #claims, 'STREAMS', KEYS[i], '>')
    if answer and answer.err then return answer end
    for _, message in ipairs(answer and answer[1][2] or {}) do
      -- The message's first field is `id`, the chunk's id.
      local chunk_id = message[2][2]
      local fingerprint = anything_waits and value_of(message[2], 'fingerprint')
      if not is_wanted(chunk_id) then
        -- All jobs that asked for the chunk were cancelled: remove its message and its entry.
        remove(KEYS[i], ARGV[1], message[1])
        redis.call('HDEL', queued, chunk_id)
        room = room - 1
      elseif fingerprint and redis.call('ZSCORE', waits, fingerprint) then
        park(KEYS[i], ARGV[1], message, group, priority, queued)
        room = room - 1
      else
        table.insert(claims, {KEYS[i], message})
      end
    end
  end
end
-- A chunk that was parked in this call may be the next trial.
try_due()
return claims
