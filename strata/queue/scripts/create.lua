-- Create a job's working copy, and put the job into the list of jobs. Fields that exist are left as they are.
--
-- KEYS[1]  the job's hash
-- ARGV[1]  the job's id
-- ARGV[2…] the fields as name, value, name, value …
-- LIST_JOB (a placeholder) is the function list_job(job_key, job_id)
--
-- Returns 1.

@LIST_JOB@
for i = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
list_job(KEYS[1], ARGV[1])
return 1
