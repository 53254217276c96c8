-- Give back what was used of a quota and is not needed. What was given back is not given back a second time.
--
-- KEYS[1]  the window, see windows.lua
-- KEYS[2]  optional: the hash of what a job has used, see use.lua
-- ARGV     with KEYS[2]: the names of the things; without: the number of the piece, and the amount
--
-- Returns nothing.

@WINDOWS@
if not KEYS[2] then
  lessen(KEYS[1], ARGV[1], tonumber(ARGV[2]))
  return
end
for _, name in ipairs(ARGV) do
  local piece, amount = string.match(redis.call('HGET', KEYS[2], name) or '', '^(%d+):(%d+)$')
  if piece then
    lessen(KEYS[1], piece, tonumber(amount))
    redis.call('HDEL', KEYS[2], name)
  end
end
