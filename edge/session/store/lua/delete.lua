-- KEYS: hash, stream, outbox, dead, families. ARGV: prefix of family keys, tombstone_ms, channel, signal,
-- unchanged_ms (empty: whatever its age). Answer: whether something was there.
local row = find()
if not row or row.deleted then return {'none'} end
if ARGV[7] ~= '' then
  local changed = tonumber(redis.call('HGET', H, 'changed'))
  if changed > clock_us() / 1000 - tonumber(ARGV[7]) or redis.call('XLEN', KEYS[3]) > 0 then
    return {'kept'}
  end
end
for _, family in ipairs(redis.call('SMEMBERS', KEYS[5])) do
  redis.call('DEL', ARGV[3] .. 'r:' .. family, ARGV[3] .. 'x:' .. family)
end
local waiting = redis.call('XLEN', KEYS[3])
redis.call('DEL', H, KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('HSET', H, 'epoch', '-', 'tail', 1, 'head', 0, 'fence', 0, 'deleted', 1)
redis.call('PEXPIRE', H, ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return {'ok', waiting, server_run()}
