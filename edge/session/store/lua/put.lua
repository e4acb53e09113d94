-- KEYS: hash, family, expiries, families. ARGV: is_session, key, version, ttl_ms, is_drop, body,
-- family, channel, signal.
local key, version, ttl = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local now = clock_us() / 1000
if ARGV[3] == '1' then
  local row = find()
  if row and row.deleted then
    if ARGV[7] == '1' then return {'ok', 0} end
    return {'deleted'}
  end
end
local current, body = unpacked(redis.call('HGET', KEYS[2], key), now)
if ARGV[7] == '1' and not current then return {'ok', 0} end
if (current or 0) ~= version then return {'conflict', current or 0, body or ''} end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 5)) do
  redis.call('HDEL', KEYS[2], old)
  redis.call('ZREM', KEYS[3], old)
end
if ARGV[7] == '1' then
  redis.call('HDEL', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
else
  local expires = 0
  if ttl > 0 then
    expires = now + ttl
    redis.call('ZADD', KEYS[3], text(expires), key)
  else
    redis.call('ZREM', KEYS[3], key)
  end
  redis.call('HSET', KEYS[2], key, text(version + 1) .. ':' .. text(expires) .. ':' .. ARGV[8])
  redis.call('SADD', KEYS[4], ARGV[9])
  if ARGV[3] == '1' then
    touch()
    redis.call('HSET', H, 'changed', text(now))
  end
end
redis.call('PUBLISH', ARGV[10], ARGV[11])
return {'ok', version + 1}
