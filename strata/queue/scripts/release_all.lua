-- Release all messages that a consumer holds: others may claim them at once, as if their leases had lapsed.
--
-- KEYS[1…] the streams
-- ARGV[1]  the consumer group
-- ARGV[2]  the consumer
-- ARGV[3]  the idle time in ms that the messages get, longer than every lease

for _, stream in ipairs(KEYS) do
  local start = '-'
  while start do
    -- An error: the stream or its consumer group does not exist, so that nothing was claimed.
    local pending = redis.pcall('XPENDING', stream, ARGV[1], start, '+', 1000, ARGV[2])
    start = nil
    for _, message in ipairs(pending.err and {} or pending) do
      -- JUSTID leaves the number of deliveries unchanged; the next holder reads the isolation notes of its chunk.
      redis.call('XCLAIM', stream, ARGV[1], ARGV[2], 0, message[1], 'IDLE', ARGV[3], 'JUSTID')
      start = '(' .. message[1]
    end
  end
end
