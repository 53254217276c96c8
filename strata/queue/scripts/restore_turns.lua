-- Give a turn to every caller who has chunks in a lane, but no turn: the server may have lost a part of what it had.
--
-- ARGV[1]  the group
-- ARGV[2…] the priorities
-- @OPEN@   the hash of the sums of unfinished jobs, by whose names the callers are known
--
-- Returns how many turns were missing.

@WAITS@
local missing = 0
for _, sum in ipairs(redis.call('HKEYS', '@OPEN@')) do
  local caller = string.match(sum, '^%a+:(.*)$')
  for i = 2, caller and #ARGV or 0 do
    local turns = turns_key(ARGV[1], ARGV[i])
    if redis.call('EXISTS', lane_key(ARGV[1], ARGV[i], caller)) == 1 and not redis.call('LPOS', turns, caller) then
      redis.call('RPUSH', turns, caller)
      missing = missing + 1
    end
  end
end
return missing
