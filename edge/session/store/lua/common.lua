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

-- A replica that was promoted, or a snapshot that was loaded, carries on another server's history and
-- may lack its end; a server that started again from its own log does not (40 zeros).
local function carries_on()
  return string.find(redis.call('INFO', 'replication'), 'master_replid2:0*[1-9a-f]') ~= nil
end

-- epoch, tail, head, fence, deleted of the session; nil when there is none.
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

-- A session whose server is not the run that last had it may lack its end and gets a new epoch, unless
-- that server has kept all it confirmed in its own log.
local function trust(row)
  local run = server_run()
  if row.run ~= run then
    row.run = run
    redis.call('HSET', H, 'run', run)
    if DURABILITY ~= 'full' or carries_on() then renew(row) end
  end
  return row
end

local function touch()
  local row = find()
  if row then
    if row.deleted then return row end
    return trust(row)
  end
  local now, run = text(clock_us() / 1000), server_run()
  redis.call('HSET', H, 'epoch', FRESH, 'tail', 1, 'head', 0, 'fence', 0, 'run', run,
             'created', now, 'changed', now)
  return {epoch = FRESH, tail = 1, head = 0, fence = 0, run = run}
end
