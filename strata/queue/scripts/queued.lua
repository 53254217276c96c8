-- How many chunks of a group are queued or in flight, without those that have stepped aside.
--
-- KEYS     the streams of the group
-- ARGV[1]  the group
-- ARGV[2…] the priorities
--
-- Returns the number in the streams, then for each lane that is not empty the caller and the number of its chunks.

@WAITS@
local found = {0}
for _, stream in ipairs(KEYS) do found[1] = found[1] + redis.call('XLEN', stream) end
for i = 2, #ARGV do
  for _, caller in ipairs(redis.call('LRANGE', turns_key(ARGV[1], ARGV[i]), 0, -1)) do
    table.insert(found, caller)
    table.insert(found, redis.call('LLEN', lane_key(ARGV[1], ARGV[i], caller)))
  end
end
return found
