-- Queue a chunk for a job, unless the chunk is queued or in flight already.
--
-- KEYS[1]  the stream of the chunk's group and priority
-- KEYS[2]  the set of the jobs that wait for the chunk
-- KEYS[3]  the hash of all chunks that are queued or in flight: chunk id -> message id
-- ARGV[1]  the chunk's id
-- ARGV[2]  the job's id
-- ARGV[3…] the message: the chunk's fields as name, value, name, value …
-- @JOB@    the key of a job's hash, without the job's id at its end
-- @STOPPED@ the statuses of jobs for which nothing is queued, as fields of a Lua table
--
-- Returns 1 if a message was added, 0 if the chunk was queued or in flight, or if the job was cancelled or has ended.

-- Another process may have cancelled or ended the job since the caller has read its status.
local stopped = {@STOPPED@}
if stopped[redis.call('HGET', '@JOB@' .. ARGV[2], 'status') or ''] then return 0 end

-- The job waits for the chunk in either case: a chunk is computed once for all jobs that ask for it.
redis.call('SADD', KEYS[2], ARGV[2])

-- Reserve the chunk's entry. HSETNX does nothing if another job has queued the chunk before.
if redis.call('HSETNX', KEYS[3], ARGV[1], '') == 0 then return 0 end

-- Add the message, and keep its id in the entry.
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('HSET', KEYS[3], ARGV[1], id)
return 1
