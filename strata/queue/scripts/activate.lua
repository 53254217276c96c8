-- Let the scheduler work on a job, or no longer.
--
-- ARGV[1]  `enter` or `leave`
-- ARGV[2]  the job's id
-- ARGV[3…] bounds as sum, limit, number …: the job is refused if one of these sums, which is not 0, would exceed its
--          limit with the number added
-- @OPEN@   see open_jobs.lua
--
-- Returns an empty text, or with nothing changed the sum whose limit is reached.

@OPEN_JOBS@
for i = 3, #ARGV, 3 do
  local sum = tonumber(redis.call('HGET', '@OPEN@', ARGV[i]) or '0')
  if sum > 0 and sum + tonumber(ARGV[i + 2]) > tonumber(ARGV[i + 1]) then return ARGV[i] end
end
if ARGV[1] == 'enter' then enter(ARGV[2]) else leave(ARGV[2]) end
return ''
