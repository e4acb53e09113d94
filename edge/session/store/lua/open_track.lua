-- ARGV: track, channel, signal. Answer: fence, epoch, head, server's run.
local row = touch()
if row.deleted then return {'deleted'} end
local now = clock_us()
local fence = math.max(row.fence + 1, now)
redis.call('HSET', H, 'fence', text(fence), 'changed', text(now / 1000),
           'f:' .. ARGV[3], text(fence), 'b:' .. ARGV[3], '')
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'ok', text(fence), row.epoch, row.head, row.run}
