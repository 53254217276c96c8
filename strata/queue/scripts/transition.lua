-- Change a job's status if the present status allows it, with other fields of the job's hash and an event, in one step.
--
-- KEYS[1]  the job's hash
-- KEYS[2]  the job's stream of events
-- KEYS[3]  the hash of the jobs that the scheduler works on
-- KEYS[4…] the job's done hashes; only given if the job begins to count anew
-- ARGV[1]  the job's id
-- ARGV[2]  the new status
-- ARGV[3]  the statuses that it may follow, as a JSON list; an empty text stands for a job without a copy in Redis
-- ARGV[4…] other fields of the hash as name, value, name, value …
-- @MAX_EVENTS@ about how many events the stream keeps
-- @STOPPED@ the statuses in which a job is to end or has ended, as fields of a Lua table
-- LIST_JOB (a placeholder) is the function list_job(job_key, job_id)
--
-- Returns the status that stands afterwards; nil if Redis has no copy of the job.

@LIST_JOB@
@OPEN_JOBS@
-- Compare: is the present status one of those that the new one may follow?
local status, allowed = redis.call('HGET', KEYS[1], 'status'), false
for _, origin in ipairs(cjson.decode(ARGV[3])) do allowed = allowed or origin == (status or '') end

-- An ended job can be retried only after its end was written, which is when it leaves the set of active jobs.
if ARGV[2] == 'validating' and redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then allowed = false end
if not allowed then return status end

-- Begin to count anew: delete the done hashes, and the counts and the other traces of the previous run.
if #KEYS > 3 then
  redis.call('DEL', unpack(KEYS, 4))
  redis.call('HDEL', KEYS[1], 'finished_at', 'error', 'rate', 'waiting')
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.find(name, ':', 1, true) then redis.call('HDEL', KEYS[1], name) end
  end
  -- The keys of a job that has ended expire; those of a job that runs again must not.
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
end

-- Set the status and the other fields. If the status changes, move the job in the list, and tell those who watch it.
redis.call('HSET', KEYS[1], 'status', ARGV[2], unpack(ARGV, 4))
if status ~= ARGV[2] then
  list_job(KEYS[1], ARGV[1])
  -- The scheduler has to write its end. A job whose retry has died half-way is not among the active ones.
  local stopped = {@STOPPED@}
  if stopped[ARGV[2]] then enter(ARGV[1]) end
  tell_scheduler(ARGV[1])
  tell_waiting(ARGV[1])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', @MAX_EVENTS@, '*', 'event', 'status', 'status', ARGV[2])
end
return ARGV[2]
