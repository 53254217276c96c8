-- Mark the list of jobs as complete, if it was rebuilt without interruption.
--
-- KEYS[1]  the token of the rebuilding that has begun last
-- KEYS[2]  the mark
-- ARGV[1]  the caller's token
--
-- Returns 1, or 0 with nothing changed if Redis was emptied or another process has begun to rebuild.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], '1')
redis.call('DEL', KEYS[1])
return 1
