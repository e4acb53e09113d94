-- KEYS: hash, stream. ARGV: channel, signal.
local row = touch()
if row.deleted then return {'deleted'} end
row = renew(row)
row.tail = row.head + 1
redis.call('DEL', KEYS[2])
redis.call('HSET', H, 'tail', row.tail, 'changed', text(clock_us() / 1000))
redis.call('PUBLISH', ARGV[3], ARGV[4])
return {'ok', row.epoch, row.tail, row.head, row.run}
