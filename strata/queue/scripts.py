"""What the broker does in one step on the server, in Lua: all of it or nothing, whoever else calls meanwhile."""

from __future__ import annotations

from strata.queue import keys

# KEYS: stream, waiters, queued; ARGV: chunk id, job, fields...
ENQUEUE = """
redis.call('SADD', KEYS[2], ARGV[2])
if redis.call('HSETNX', KEYS[3], ARGV[1], '') == 0 then return 0 end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('HSET', KEYS[3], ARGV[1], id)
return 1
"""

# KEYS: queued, streams, the first first; ARGV: consumer group, consumer, how many
# COUNT holds for each stream of a call, not for the call; chunks that nobody waits for any more go here, uncounted
CLAIM = """
local claims = {}
for i = 2, #KEYS do
  local answer = true
  while answer and #claims < tonumber(ARGV[3]) do
    answer = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3] - #claims, 'STREAMS', KEYS[i], '>')
    if answer and answer.err then return answer end
    for _, message in ipairs(answer and answer[1][2] or {}) do
      local chunk_id = message[2][2]
      if redis.call('EXISTS', '@WAITERS@' .. chunk_id) == 1 then
        table.insert(claims, {KEYS[i], message})
      else
        redis.call('XACK', KEYS[i], ARGV[1], message[1])
        redis.call('XDEL', KEYS[i], message[1])
        redis.call('HDEL', KEYS[1], chunk_id)
      end
    end
  end
end
return claims
""".replace("@WAITERS@", keys.waiters(""))

# KEYS: stream, waiters, queued, notes of what is in hand, next stream, next waiters
# ARGV: message, consumer group, consumer, chunk id, chunk field, group, value, counts, next chunk id, next fields...
FINISH = """
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[2], ARGV[1], ARGV[1], 1)
if pending.err or #pending == 0 or pending[1][2] ~= ARGV[3] then return 0 end
redis.call('XACK', KEYS[1], ARGV[2], ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[4])
redis.call('DEL', KEYS[4])
local jobs = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[2])
local counts = cjson.decode(ARGV[8])
for _, job in ipairs(jobs) do
  local base = '@JOB@' .. job
  if redis.call('EXISTS', base) == 1 and redis.call('HSETNX', base .. ':' .. ARGV[6], ARGV[5], ARGV[7]) == 1 then
    for name, n in pairs(counts) do redis.call('HINCRBY', base, ARGV[6] .. ':' .. name, n) end
    redis.call('XADD', base .. ':events', 'MAXLEN', '~', 10000, '*', 'event', 'progress', 'group', ARGV[6],
      'chunk', ARGV[5], 'counts', ARGV[8])
  end
end
if ARGV[9] ~= '' and #jobs > 0 then
  redis.call('SADD', KEYS[6], unpack(jobs))
  if redis.call('HSETNX', KEYS[3], ARGV[9], '') == 1 then
    redis.call('HSET', KEYS[3], ARGV[9], redis.call('XADD', KEYS[5], '*', unpack(ARGV, 10)))
  end
end
return 1
""".replace("@JOB@", keys.job(""))

# KEYS: done hash, job hash, events; ARGV: field, value, counts, group
RECORD = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
for name, n in pairs(cjson.decode(ARGV[3])) do redis.call('HINCRBY', KEYS[2], ARGV[4] .. ':' .. name, n) end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*', 'event', 'progress', 'group', ARGV[4], 'chunk', ARGV[1],
  'counts', ARGV[3])
return 1
"""

# KEYS: stream; ARGV: consumer group, consumer, message
RENEW = """
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if pending.err or #pending == 0 or pending[1][2] ~= ARGV[2] then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return 1
"""
