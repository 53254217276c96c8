-- Fair turns: functions that `load_with_waits` puts into the scripts which queue and claim chunks.
--
-- Each caller has a lane, a list of the chunks that it has queued, for each group and priority. Callers with chunks take
-- turns: one chunk of each moves to the stream, where workers claim it. Only so many chunks as are claimed move, so that
-- the chunks of a caller who comes later wait for few of those that were queued before. Where nothing waits, a chunk is
-- queued in the stream at once, which wakes a worker that waits for it.
--
-- @CALLER@  the field of a message with the caller whose chunk it is
-- @CONSUMER_GROUP@ the name of the consumer group

local function lane_key(group, priority, caller) return names.lane .. group .. ':' .. priority .. ':' .. caller end
local function turns_key(group, priority) return names.turns .. group .. ':' .. priority end

-- How many messages of a stream no consumer has claimed.
local function unclaimed(stream)
  local length = redis.call('XLEN', stream)
  if length == 0 then return 0 end
  -- An error: the consumer group does not exist yet, so that nothing was claimed.
  local pending = redis.pcall('XPENDING', stream, '@CONSUMER_GROUP@')
  return pending.err and length or length - pending[1]
end

-- Move chunks from the lanes to the stream, one of each caller in turn, until `count` wait there. Chunks for which no job
-- waits are removed. At most `room` chunks are moved or removed; returns how much of that is left.
local function move_on(group, priority, count, room, queued)
  local turns = turns_key(group, priority)
  if redis.call('EXISTS', turns) == 0 then return room end
  local stream = names.stream .. group .. ':' .. priority
  local missing = count - unclaimed(stream)
  while missing > 0 and room > 0 do
    local caller = redis.call('LPOP', turns)
    if not caller then break end
    local lane = lane_key(group, priority, caller)
    local packed = redis.call('LPOP', lane)
    -- A caller who has more chunks takes the next turn after the others.
    if redis.call('EXISTS', lane) == 1 then redis.call('RPUSH', turns, caller) end
    if packed then
      local fields = cjson.decode(packed)
      room = room - 1
      if is_wanted(fields[2]) then
        redis.call('HSET', queued, fields[2], redis.call('XADD', stream, '*', unpack(fields)))
        missing = missing - 1
      else
        redis.call('HDEL', queued, fields[2])
      end
    end
  end
  return room
end

-- Queue a chunk behind those of its caller, of whom its message tells. In a lane it has an empty message id.
local function queue_chunk(group, priority, fields, queued)
  local caller = value_of(fields, '@CALLER@') or ''
  -- The caller takes turns from its first chunk on.
  if redis.call('RPUSH', lane_key(group, priority, caller), cjson.encode(fields)) == 1 then
    redis.call('RPUSH', turns_key(group, priority), caller)
  end
  redis.call('HSET', queued, fields[2], '')
  move_on(group, priority, 1, 100, queued)
end
