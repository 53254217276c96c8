-- One page of the list of jobs, the newest first, from several sorted sets that are merged.
--
-- KEYS     the sets; each member is ID:PROFILE:IMAGE or ID:PROFILE:IMAGE@TENANT, all scores are 0
-- ARGV[1]  the upper bound of the members, as ZRANGE BYLEX takes it
-- ARGV[2]  the lower bound
-- ARGV[3]  the profile of the jobs, or empty for all
-- ARGV[4]  the image of the jobs, or empty for all
-- ARGV[5]  the tenant of the jobs, or empty for all
-- ARGV[6]  how many ids to return at most
-- ARGV[7]  how many members to look at at most
-- ARGV[8]  the tenant of members that name none
--
-- Returns the ids, and the id after which the next page begins, empty if nothing is left.

local limit, most = tonumber(ARGV[6]), tonumber(ARGV[7])
local filtered = ARGV[3] ~= '' or ARGV[4] ~= '' or ARGV[5] ~= ''
local batch = math.min(filtered and 500 or limit, most)

local sets = {}

-- The newest member of a set that was not taken yet, or nil. Members are read in batches.
local function head(set)
  if set.at > #set.members and set.more then
    set.members = redis.call('ZRANGE', set.key, set.top, ARGV[2], 'BYLEX', 'REV', 'LIMIT', 0, batch)
    set.at, set.more = 1, #set.members == batch
    if #set.members > 0 then set.top = '(' .. set.members[#set.members] end
  end
  return set.members[set.at]
end

-- Only sets that have members are compared: mostly few do.
for _, key in ipairs(KEYS) do
  local set = {key = key, top = ARGV[1], members = {}, at = 1, more = true}
  set.head = head(set)
  if set.head then table.insert(sets, set) end
end

-- Whether a job has the profile, image and tenant that are asked for. last: IMAGE or IMAGE@TENANT.
local function passes(profile, last)
  local image, tenant = string.match(last, '^([^@]*)@?(.*)$')
  if tenant == '' then tenant = ARGV[8] end
  return (ARGV[3] == '' or ARGV[3] == profile) and (ARGV[4] == '' or ARGV[4] == image)
    and (ARGV[5] == '' or ARGV[5] == tenant)
end

-- Take the newest member of all sets, one after another.
local ids, looked, last = {}, 0, ''
while #sets > 0 and #ids < limit and looked < most do
  local best = 1
  for i = 2, #sets do
    if sets[i].head > sets[best].head then best = i end
  end
  local set = sets[best]
  local id, profile, image = string.match(set.head, '^([^:]*):(.*):([^:]*)$')
  if passes(profile, image) then table.insert(ids, id) end
  set.at, looked, last = set.at + 1, looked + 1, id
  set.head = head(set)
  if not set.head then table.remove(sets, best) end
end
return {ids, #sets > 0 and last or ''}
