-- Queue a chunk for a job, unless the chunk is queued or in flight already.
--
-- KEYS[1]  the set of the jobs that wait for the chunk
-- KEYS[2]  the hash of all chunks that are queued or in flight: chunk id -> message id
-- ARGV[1]  the chunk's id
-- ARGV[2]  the job's id
-- ARGV[3]  the chunk's group
-- ARGV[4]  the priority
-- ARGV[5…] the message: the chunk's fields as name, value, name, value …
-- @JOB@    the key of a job's hash, without the job's id at its end
-- @CALLER@ the field of a message with the caller whose chunk it is
-- @STOPPED@ the statuses of jobs for which nothing is queued, as fields of a Lua table
--
-- Returns 1 if the chunk was queued, 0 if the chunk was queued or in flight, or if the job was cancelled or has ended.

@WAITS@
-- Another process may have cancelled or ended the job since the caller has read its status.
local stopped = {@STOPPED@}
local job = redis.call('HMGET', '@JOB@' .. ARGV[2], 'status', 'caller')
if stopped[job[1] or ''] then return 0 end

-- The job waits for the chunk in either case: a chunk is computed once for all jobs that ask for it.
redis.call('SADD', KEYS[1], ARGV[2])

-- Another job may have queued the chunk before.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end

-- Queue it in the turn of the job's caller.
local fields = {unpack(ARGV, 5)}
if job[2] then
  table.insert(fields, '@CALLER@')
  table.insert(fields, job[2])
end
queue_chunk(ARGV[3], ARGV[4], fields, KEYS[2])
return 1
