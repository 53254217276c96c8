-- A function for other scripts: put a job into the list of its status, and out of the lists of all others.
--
-- job_key   the job's hash; its field `listed` has KIND:PROFILE:IMAGE, or with @TENANT. A job without it is not listed.
-- job_id    the job's id
-- @LISTED@  the beginning of the lists' names; STATUS and KIND follow, with a colon between them
-- @STATUSES@ all statuses, as Lua strings

local function list_job(job_key, job_id)
  local found = redis.call('HMGET', job_key, 'listed', 'status')
  if not found[1] or not found[2] then return end
  local kind, text = string.match(found[1], '^(%a+):(.*)$')
  local member = job_id .. ':' .. text
  for _, status in ipairs({@STATUSES@}) do
    local key = '@LISTED@' .. status .. ':' .. kind
    if status == found[2] then redis.call('ZADD', key, 0, member) else redis.call('ZREM', key, member) end
  end
end
