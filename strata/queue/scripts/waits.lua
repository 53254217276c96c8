-- What the scripts about waiting fingerprints have in common: functions that `load_with_waits` puts into them.
--
-- @WAITERS@ the key of the set of the jobs that wait for a chunk, without the chunk's id at its end
-- @NAMES@   a Lua table of keys without the group at their end: waits, waiting, parked, returning and stream of keys.py

local names = @NAMES@

-- The server's time in milliseconds. No other clock is used, because the machines' clocks differ.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function waits_key(group) return names.waits .. group end
local function returning_key(group) return names.returning .. group end
local function waiting_key(group, fingerprint) return names.waiting .. group .. ':' .. fingerprint end
local function parked_key(group, fingerprint, priority)
  return names.parked .. group .. ':' .. fingerprint .. ':' .. priority
end

-- The value of a field in a message's fields: name, value, name, value …
local function value_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

local function is_wanted(chunk_id) return redis.call('EXISTS', '@WAITERS@' .. chunk_id) == 1 end

-- Whether the consumer holds a message. An error (the stream or its consumer group is gone) counts as a lost lease.
local function is_held(stream, consumer_group, consumer, message)
  local pending = redis.pcall('XPENDING', stream, consumer_group, message, message, 1)
  return not pending.err and #pending == 1 and pending[1][2] == consumer
end

-- Remove a message from its stream.
local function remove(stream, consumer_group, message)
  redis.call('XACK', stream, consumer_group, message)
  redis.call('XDEL', stream, message)
end

-- Park a message that was read just now: its chunk waits behind the others of its fingerprint. The chunk stays in the
-- hash of queued chunks, with an empty message id, so that it is not queued twice.
local function park(stream, consumer_group, message, group, priority, queued)
  local fields = message[2]
  redis.call('RPUSH', parked_key(group, value_of(fields, 'fingerprint'), priority), cjson.encode(fields))
  redis.call('HSET', queued, fields[2], '')
  remove(stream, consumer_group, message[1])
end

-- Forget that a chunk is tried, if it is: its fingerprint waits on, and another chunk may be tried at once.
local function end_trial(group, fingerprint, chunk_id)
  local key = waiting_key(group, fingerprint)
  if redis.call('HGET', key, 'trial') == chunk_id then
    redis.call('HDEL', key, 'trial')
    redis.call('ZADD', waits_key(group), 'XX', now(), fingerprint)
  end
end
