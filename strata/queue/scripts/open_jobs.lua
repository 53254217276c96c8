-- Functions for other scripts: the jobs that the scheduler works on, how many of them each caller has, and the news of
-- jobs, so that nobody has to look at all jobs to find those that have changed.
--
-- @JOB@     the key of a job's hash, without the job's id at its end
-- @ACTIVE@  the hash of the jobs that the scheduler works on: id -> KIND:NUMBER:CALLER, with the number of shards
-- @OPEN@    the hash of the sums of these jobs: KIND or KIND:CALLER -> jobs, shards or shards:CALLER -> shards
-- @CLOSED@  the beginning of the keys of the counts of what has ended lately; KIND and ten seconds follow
-- @CHANGED@ the set of the jobs that have changed since the scheduler has looked
-- @SETTLED@ the stream of the jobs of one image that have got their result, or never get one

local function is_image(job_id)
  return string.find(redis.call('HGET', '@JOB@' .. job_id, 'listed') or '', '^image:') ~= nil
end

-- Tell the scheduler that a job has changed; it looks at the job in its next tick.
local function tell_scheduler(job_id) redis.call('SADD', '@CHANGED@', job_id) end

-- Tell the requests that wait for the job of one image.
local function tell_waiting(job_id)
  if is_image(job_id) then redis.call('XADD', '@SETTLED@', 'MAXLEN', '~', 1000, '*', 'job', job_id) end
end

local function add_up(entry, sign)
  local kind, number, caller = string.match(entry, '^(%a+):(%d+):(.*)$')
  local sums = {[kind] = 1, [kind .. ':' .. caller] = 1}
  if kind == 'batch' then sums['shards'], sums['shards:' .. caller] = number, number end
  for name, n in pairs(sums) do
    if redis.call('HINCRBY', '@OPEN@', name, sign * tonumber(n)) <= 0 then redis.call('HDEL', '@OPEN@', name) end
  end
  return kind, number
end

-- Let the scheduler work on a job.
local function enter(job_id)
  local found = redis.call('HMGET', '@JOB@' .. job_id, 'listed', 'shards', 'caller')
  local kind = string.match(found[1] or '', '^(%a+):') or 'batch'
  local entry = kind .. ':' .. (found[2] or '1') .. ':' .. (found[3] or '')
  if redis.call('HSETNX', '@ACTIVE@', job_id, entry) == 1 then add_up(entry, 1) end
  tell_scheduler(job_id)
end

-- Let the scheduler no longer work on a job; whether it did.
local function leave(job_id)
  tell_scheduler(job_id)
  local entry = redis.call('HGET', '@ACTIVE@', job_id)
  if not entry then return false end
  redis.call('HDEL', '@ACTIVE@', job_id)
  local kind, number = add_up(entry, -1)
  -- Count what has ended in each ten seconds of the last minute, by which it is told when there is room again.
  local key = '@CLOSED@' .. kind .. ':' .. math.floor(tonumber(redis.call('TIME')[1]) / 10)
  redis.call('INCRBY', key, number)
  redis.call('EXPIRE', key, 120)
  return true
end
