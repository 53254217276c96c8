-- Add a job of the store to the list of jobs, unless the list has it.
--
-- KEYS[1]  the job's hash
-- KEYS[2]  the list of the job's status in the store
-- ARGV[1]  the job's id
-- ARGV[2]  PROFILE:IMAGE
-- ARGV[3]  the job's status in the store
-- LIST_JOB (a placeholder) is the function list_job(job_key, job_id)
--
-- Returns 1.

@LIST_JOB@
-- A working copy has the newer status: the job may have been retried since its files were read.
if redis.call('HEXISTS', KEYS[1], 'listed') == 1 then
  list_job(KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[2], 0, ARGV[1] .. ':' .. ARGV[2])
end
return 1
