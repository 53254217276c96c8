-- Check a chunk that a blocking read has claimed: park it if its fingerprint waits, remove it if no job waits for it.
--
-- KEYS[1]  the stream of the message
-- KEYS[2]  the hash of all chunks that are queued or in flight
-- ARGV[1]  the consumer group
-- ARGV[2]  the message's id
-- ARGV[3]  the chunk's group
-- ARGV[4]  its priority
--
-- Returns 1 if the chunk is to be computed, else 0.

@WAITS@
local message = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if not message then return 0 end
local chunk_id = message[2][2]
if not is_wanted(chunk_id) then
  remove(KEYS[1], ARGV[1], ARGV[2])
  redis.call('HDEL', KEYS[2], chunk_id)
  return 0
end
if not redis.call('ZSCORE', waits_key(ARGV[3]), value_of(message[2], 'fingerprint')) then return 1 end
park(KEYS[1], ARGV[1], message, ARGV[3], ARGV[4], KEYS[2])
return 0
