-- Give back what was used of a quota and is not needed. What was given back is not given back a second time.
--
-- KEYS[1]  the hash of what was counted by name, see use.lua
-- ARGV     the names of the things
--
-- Returns nothing.

@WINDOWS@
for _, name in ipairs(ARGV) do
  local piece, amount, window = string.match(redis.call('HGET', KEYS[1], name) or '', '^(%d+):(%d+):(.+)$')
  if piece then
    lessen(window, piece, tonumber(amount))
    redis.call('HDEL', KEYS[1], name)
  end
end
