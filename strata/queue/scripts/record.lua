-- Count a chunk for one job without computing it: its part was in the store before.
--
-- KEYS[1]  the job's done hash of the chunk's group
-- KEYS[2]  the job's hash
-- KEYS[3]  the job's stream of events
-- ARGV[1]  the chunk's field in the done hash
-- ARGV[2]  the value to keep in the done hash: a shard's summary as JSON for `index`, else empty
-- ARGV[3]  the counts to add, as a JSON object of name -> number
-- ARGV[4]  the chunk's group
-- ARGV[5]  the job's id
-- @MAX_EVENTS@ about how many events the stream keeps
-- @STOPPED@ the statuses of jobs that count nothing, as fields of a Lua table
--
-- Returns 1, or 0 if the job has counted the chunk before, was cancelled or has ended, or has no copy in Redis.

@OPEN_JOBS@
-- A count without the job's hash would be added once more when the hash is rebuilt.
local stopped = {@STOPPED@}
if redis.call('EXISTS', KEYS[2]) == 0 or stopped[redis.call('HGET', KEYS[2], 'status') or ''] then return 0 end

-- Enter the chunk into the done hash; HSETNX makes sure that a job counts a chunk once.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end

-- Add the counts to the job's hash.
for name, n in pairs(cjson.decode(ARGV[3])) do redis.call('HINCRBY', KEYS[2], ARGV[4] .. ':' .. name, n) end

-- Add an event for those who watch the job.
redis.call('XADD', KEYS[3], 'MAXLEN', '~', @MAX_EVENTS@, '*', 'event', 'progress', 'group', ARGV[4],
  'chunk', ARGV[1], 'counts', ARGV[3])
tell_scheduler(ARGV[5])
if ARGV[4] == '@FINAL_GROUP@' then tell_waiting(ARGV[5]) end
return 1
