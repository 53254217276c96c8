-- Put a job into the list of its status, after the status was changed.
--
-- KEYS[1]  the job's hash
-- ARGV[1]  the job's id
-- LIST_JOB (a placeholder) is the function list_job(job_key, job_id)
--
-- Returns 1.

@LIST_JOB@
list_job(KEYS[1], ARGV[1])
return 1
