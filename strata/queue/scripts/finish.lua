-- Finish a chunk: acknowledge its message, count it for every waiting job, and queue the next group's chunk.
--
-- KEYS[1]  the stream of the message
-- KEYS[2]  the set of the jobs that wait for the chunk
-- KEYS[3]  the hash of all chunks that are queued or in flight
-- KEYS[4]  the hash with the chunk's isolation notes
-- KEYS[5]  the hash of what all processes have counted
-- ARGV[1]  the message's id
-- ARGV[2]  the consumer group
-- ARGV[3]  the consumer
-- ARGV[4]  the chunk's id
-- ARGV[5]  the chunk's field in a job's done hash
-- ARGV[6]  the chunk's group
-- ARGV[7]  the chunk's fingerprint
-- ARGV[8]  the value to keep in the done hash: a shard's summary as JSON for `index`, else empty
-- ARGV[9]  the counts to add to each job, as a JSON object of name -> number
-- ARGV[10] what to add to KEYS[5], as a JSON object of field -> number
-- ARGV[11] the next group, or empty if there is none
-- ARGV[12] the priority of its chunk
-- ARGV[13…] the fields of its chunk as name, value …, its id first; a job may want another fingerprint of it
-- @JOB@    the key of a job's hash, without the job's id at its end
-- @WAITERS@ the key of the set of the jobs that wait for a chunk, without the chunk's id at its end
-- @EVENTS@ what a job's key is continued with for its stream of events
-- @MAX_EVENTS@ about how many events the stream keeps
-- @STOPPED@ the statuses of jobs that count nothing, as fields of a Lua table
--
-- Returns 1, or 0 with nothing changed if the consumer no longer holds the message.

@WAITS@
@OPEN_JOBS@

-- Change the fingerprint in a chunk's fields, and in its id GROUP/FINGERPRINT/IDENTITY/NAME.
local function set_fingerprint(fields, fingerprint)
  fields[2] = string.gsub(fields[2], '^([^/]*)/[^/]*/', '%1/' .. fingerprint .. '/')
  for i = 3, #fields, 2 do
    if fields[i] == 'fingerprint' then fields[i + 1] = fingerprint end
  end
end

-- Fencing: a worker that was paused until its lease lapsed must not finish a chunk that another worker has reclaimed.
if not is_held(KEYS[1], ARGV[2], ARGV[3], ARGV[1]) then return 0 end

-- Find the jobs that wait for the chunk, without those that were cancelled or have ended.
local jobs, counts, stopped = {}, cjson.decode(ARGV[9]), {@STOPPED@}
for _, job in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if not stopped[redis.call('HGET', '@JOB@' .. job, 'status') or ''] then table.insert(jobs, job) end
end

-- Count the chunk for each job that still exists. HSETNX makes sure that a job counts a chunk once.
for _, job in ipairs(jobs) do
  local base = '@JOB@' .. job
  if redis.call('EXISTS', base) == 1 and redis.call('HSETNX', base .. ':' .. ARGV[6], ARGV[5], ARGV[8]) == 1 then
    for name, n in pairs(counts) do redis.call('HINCRBY', base, ARGV[6] .. ':' .. name, n) end
    redis.call('XADD', base .. '@EVENTS@', 'MAXLEN', '~', @MAX_EVENTS@, '*', 'event', 'progress', 'group', ARGV[6],
      'chunk', ARGV[5], 'counts', ARGV[9])
    tell_scheduler(job)
    if ARGV[11] == '' then tell_waiting(job) end
  end
end

-- Queue the next group's chunk for the same jobs, unless it is queued or in flight already. Jobs with other texts of the
-- same images share this chunk, and each has its own fingerprint of the next group.
if ARGV[11] ~= '' then
  local wanted = {}
  for _, job in ipairs(jobs) do
    local fields = {unpack(ARGV, 13)}
    local own = redis.call('HGET', '@JOB@' .. job, ARGV[11] .. '_fingerprint')
    if own then set_fingerprint(fields, own) end
    redis.call('SADD', '@WAITERS@' .. fields[2], job)
    wanted[fields[2]] = fields
  end
  for id, fields in pairs(wanted) do
    if redis.call('HEXISTS', KEYS[3], id) == 0 then queue_chunk(ARGV[11], ARGV[12], fields, KEYS[3]) end
  end
end

-- Last, when nothing can fail any more: remove the message, its waiting jobs, its entry and its isolation notes.
remove(KEYS[1], ARGV[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[4])
redis.call('DEL', KEYS[2], KEYS[4])
end_trial(ARGV[6], ARGV[7], ARGV[4])

-- Once for the chunk, however many jobs wait for it. Sums that cannot be counted stop no work.
for field, n in pairs(cjson.decode(ARGV[10])) do redis.pcall('HINCRBYFLOAT', KEYS[5], field, n) end
return 1
