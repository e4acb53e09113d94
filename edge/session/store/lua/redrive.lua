-- KEYS: hash, outbox, dead. ARGV: id of a dead letter. Answer: whether it was there.
local letter = redis.call('HGET', KEYS[3], ARGV[3])
if not letter then return 0 end
local offset, epoch, size, rest = string.match(letter, '^(%d+):(%x+):%d+:%d+:(%d+):(.*)$')
local number = redis.call('HINCRBY', H, 'numbers', 1)
redis.call('XADD', KEYS[2], text(number) .. '-0', 'o', offset, 'e', epoch, 'n', '0',
           'q', text(clock_us() / 1000), 'b', string.sub(rest, tonumber(size) + 1))
redis.call('HDEL', KEYS[3], ARGV[3])
return 1
