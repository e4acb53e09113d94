-- KEYS: hash, outbox, dead. ARGV: owner, what (ack, retry, bury), delay_ms or reason, ids.
-- An empty owner settles rows whoever has them. Answer: when the session is due again (0: now), how
-- many rows went.
if ARGV[3] ~= '' and redis.call('HGET', H, 'owner') ~= ARGV[3] then return {'stale', 0, 0} end
local now, gone = clock_us() / 1000, 0
local due = nil
for i = 6, #ARGV do
  local found = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])
  if #found > 0 then
    if ARGV[4] == 'retry' then
      -- A stream entry cannot be changed: the attempts of the row in front are counted beside it.
      local tries = redis.call('HGET', H, 'tries')
      local id, count = string.match(tries or '', '^(.+)=(%d+)$')
      count = id == ARGV[i] and tonumber(count) or 0
      redis.call('HSET', H, 'tries', ARGV[i] .. '=' .. (count + 1))
      due = now + tonumber(ARGV[5])
    else
      if ARGV[4] == 'bury' then
        local row = {}
        for f = 1, #found[1][2], 2 do row[found[1][2][f]] = found[1][2][f + 1] end
        redis.call('HSET', KEYS[3], ARGV[i], table.concat(
          {row.o, row.e, row.q, text(now), #ARGV[5], ARGV[5] .. row.b}, ':'))
      end
      redis.call('XDEL', KEYS[2], ARGV[i])
      gone = gone + 1
    end
  end
end
local front = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
if not due then
  if ARGV[3] == '' then return {'held', 0, gone} end
  if #front > 0 and tonumber(string.match(front[1][1], '^%d+'))
      <= tonumber(string.match(redis.call('HGET', H, 'upto') or '0', '^%d+')) then
    return {'held', 0, gone}
  end
  due = 0
end
redis.call('HSET', H, 'owner', '', 'due', text(due))
if #front == 0 then return {'empty', 0, gone} end
return {'ok', text(due), gone}
