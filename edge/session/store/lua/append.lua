-- KEYS: hash, stream, outbox. ARGV: track, fence, epoch, acked, batch, count, then kind and body of
-- each draft, then number of outbox rows, then index (from 0) and body of each; channel, session name.
-- Answer: offset of the last, server's run.
local track, fence, epoch = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local acked, batch, count = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local row
if track == '' then
  row = touch()
else
  row = find()
  if not row then return {'lost', touch().epoch} end
  if not row.deleted then row = trust(row) end
end
if row.deleted then return {'deleted'} end
if track ~= '' then
  local known = redis.call('HMGET', H, 'f:' .. track, 'b:' .. track)
  local current = tonumber(known[1] or '0')
  if epoch ~= row.epoch then return {'lost', row.epoch} end
  if fence < current then return {'stale', text(current)} end
  if fence > current or acked > row.head then return {'lost', renew(row).epoch} end
  local last = known[2] and string.match(known[2], '^(%d+)=')
  if last and string.sub(known[2], #last + 2) == batch then return {'ok', tonumber(last), row.run} end
  -- One that was long given up, and done by another way: the network may still deliver it.
  local number = last and tonumber(string.match(known[2], '=(%d+):'))
  if number and tonumber(string.match(batch, '^(%d+):')) < number then return {'stale', text(current)} end
end
local now = text(clock_us() / 1000)
local at = 9
for i = 1, count do
  redis.call('XADD', KEYS[2], text(row.head + i) .. '-0',
             'k', ARGV[at], 't', track, 'f', ARGV[4], 'a', now, 'b', ARGV[at + 1])
  at = at + 2
end
local last = row.head + count
local fields = {'head', last, 'changed', now}
if track ~= '' then
  fields[#fields + 1] = 'b:' .. track
  fields[#fields + 1] = text(last) .. '=' .. batch
end
local rows = tonumber(ARGV[at])
at = at + 1
if rows > 0 then
  local number = redis.call('HINCRBY', H, 'numbers', rows) - rows
  for i = 1, rows do
    redis.call('XADD', KEYS[3], text(number + i) .. '-0', 'o', row.head + 1 + tonumber(ARGV[at]),
               'e', row.epoch, 'n', '0', 'q', now, 'b', ARGV[at + 1])
    at = at + 2
  end
end
redis.call('HSET', H, unpack(fields))
redis.call('PUBLISH', ARGV[at], cmsgpack.pack({ARGV[at + 1], last}))
return {'ok', last, row.run}
