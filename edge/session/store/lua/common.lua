-- Shared by every script of the store. KEYS[1] is the session's hash; all keys of a session carry its
-- name as hash tag. ARGV[1] is this call's durability, ARGV[2] a fresh epoch for when one is needed.
local H = KEYS[1]
local DURABILITY, FRESH = ARGV[1], ARGV[2]

local function clock_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function text(number)
  return string.format('%.0f', number)
end

-- One run of one server: another one after a restart or a failover.
local function server_run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- epoch, tail, head, fence, deleted of the session; nil when there is none. A session whose server
-- restarted or failed over without full durability may lack its end: it gets a new epoch.
local function find()
  local v = redis.call('HMGET', H, 'epoch', 'tail', 'head', 'fence', 'deleted', 'run')
  if not v[1] then return nil end
  local row = {epoch = v[1], tail = tonumber(v[2]), head = tonumber(v[3]), fence = tonumber(v[4]),
               deleted = v[5] and true or false, run = v[6]}
  return row
end

local function renew(row)
  row.epoch = FRESH
  redis.call('HSET', H, 'epoch', FRESH)
  return row
end

local function trust(row)
  local run = server_run()
  if row.run ~= run then
    redis.call('HSET', H, 'run', run)
    if DURABILITY ~= 'full' then renew(row) end
  end
  return row
end

local function touch()
  local row = find()
  if row then
    if row.deleted then return row end
    return trust(row)
  end
  local now = text(clock_us() / 1000)
  redis.call('HSET', H, 'epoch', FRESH, 'tail', 1, 'head', 0, 'fence', 0, 'run', server_run(),
             'created', now, 'changed', now)
  return {epoch = FRESH, tail = 1, head = 0, fence = 0}
end
