-- KEYS: the index of waiting sessions. ARGV: limit, ms ahead (empty: those that are due by now, else
-- those that are due later than so far ahead). Answer: names and scores, by this server's clock.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
if ARGV[2] ~= '' then
  local later = string.format('(%.0f', now + tonumber(ARGV[2]))
  return redis.call('ZRANGEBYSCORE', KEYS[1], later, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
end
local until_ms = string.format('%.0f', now)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_ms, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
