-- KEYS: the index of waiting sessions. ARGV: limit, ms ahead (empty: those that are due by now, else
-- those that are due later than so far ahead). Answer: this server's clock, then names and scores.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local from, to = '-inf', string.format('%.0f', now)
if ARGV[2] ~= '' then
  from, to = string.format('(%.0f', now + tonumber(ARGV[2])), '+inf'
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], from, to, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
table.insert(found, 1, string.format('%.0f', now))
return found
