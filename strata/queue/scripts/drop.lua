-- Remove a chunk without counting it for any job.
--
-- KEYS[1]  the stream of the message
-- KEYS[2]  the set of the jobs that wait for the chunk
-- KEYS[3]  the hash of all chunks that are queued or in flight
-- KEYS[4]  the hash with the chunk's isolation notes
-- ARGV[1]  the message's id
-- ARGV[2]  the consumer group
-- ARGV[3]  the consumer
-- ARGV[4]  the chunk's id
-- ARGV[5]  the chunk's group
-- ARGV[6]  its fingerprint
--
-- Returns 1, or 0 with nothing changed if the consumer no longer holds the message.

@WAITS@
if not is_held(KEYS[1], ARGV[2], ARGV[3], ARGV[1]) then return 0 end
remove(KEYS[1], ARGV[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[4])
redis.call('DEL', KEYS[2], KEYS[4])
end_trial(ARGV[5], ARGV[6], ARGV[4])
return 1
