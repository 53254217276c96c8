-- Functions for other scripts: the jobs that the scheduler works on, how many of them each caller has, and the news of
-- jobs, so that nobody has to look at all jobs to find those that have changed.
--
-- @JOB@     the key of a job's hash, without the job's id at its end
-- @ACTIVE@  the hash of the jobs that the scheduler works on: id -> KIND:NUMBER:CALLER, with the number of shards
-- @OPEN@    the hash of their sums: `image` and `batch` -> jobs, `shards` -> shards of batches; each also as NAME:CALLER
-- @CLOSED@  the beginning of the keys of the sums of what has ended lately; NAME and the number of ten seconds follow
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

-- Add a job to the sums, or take it from them; returns its numbers.
local function add_up(entry, sign)
  local kind, number, caller = string.match(entry, '^(%a+):(%d+):(.*)$')
  local numbers = {[kind] = 1}
  if kind == 'batch' then numbers['shards'] = tonumber(number) end
  for name, n in pairs(numbers) do
    for _, sum in ipairs({name, name .. ':' .. caller}) do
      if redis.call('HINCRBY', '@OPEN@', sum, sign * n) <= 0 then redis.call('HDEL', '@OPEN@', sum) end
    end
  end
  return numbers
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
  -- Count what has ended in each ten seconds of the last minute, by which it is told when there is room again.
  local period = math.floor(tonumber(redis.call('TIME')[1]) / 10)
  for name, n in pairs(add_up(entry, -1)) do
    redis.call('INCRBY', '@CLOSED@' .. name .. ':' .. period, n)
    redis.call('EXPIRE', '@CLOSED@' .. name .. ':' .. period, 120)
  end
  return true
end
