-- Close a job whose end is written: the scheduler no longer works on it, and its keys expire.
--
-- KEYS[1]  the job's hash
-- KEYS[2]  the job's stream of events
-- KEYS[3…] the job's other keys
-- ARGV[1]  the job's id
-- ARGV[2]  the status with which it has ended
-- ARGV[3]  the seconds after which its keys expire
-- @MAX_EVENTS@ about how many events the stream keeps
--
-- Returns 1, or 0 with nothing changed if the job no longer has this status.

@OPEN_JOBS@
if redis.call('HGET', KEYS[1], 'status') ~= ARGV[2] then return 0 end

-- Until here the job was shown as `finalizing`: add an event, so that those who watch it learn its end.
if leave(ARGV[1]) then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', @MAX_EVENTS@, '*', 'event', 'status', 'status', ARGV[2])
end
for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return 1
