-- KEYS: hash, outbox. ARGV: owner, limit, lease_ms. Answer: 'busy' and when to come back, or the rows.
local now = clock_us() / 1000
local v = redis.call('HMGET', H, 'due', 'deleted')
if v[2] then return {'ok', text(now), {}, ''} end
local due = tonumber(v[1] or '0')
if due > now then return {'busy', text(due)} end
local rows = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[4])
if #rows > 0 then
  local until_ms = text(now + tonumber(ARGV[5]))
  redis.call('HSET', H, 'owner', ARGV[3], 'due', until_ms, 'upto', rows[#rows][1])
  return {'ok', until_ms, rows, redis.call('HGET', H, 'tries') or ''}
end
return {'ok', text(now), rows, ''}
