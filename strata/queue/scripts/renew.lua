-- Renew the lease on a message: set its idle time to 0, if the consumer still holds it.
--
-- KEYS[1]  the stream
-- ARGV[1]  the consumer group
-- ARGV[2]  the consumer
-- ARGV[3]  the message's id
--
-- Returns 1 if the lease was renewed, 0 if another consumer holds the message or it is no longer pending.

@WAITS@
if not is_held(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end

-- Claim it again for the same consumer. JUSTID leaves the number of deliveries unchanged.
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return 1
