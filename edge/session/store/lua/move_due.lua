-- KEYS: the index of waiting sessions. ARGV: session, score it was seen with, new score (empty: remove).
-- Whoever appended meanwhile has set another score, which stays.
local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not seen or tonumber(seen) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then return redis.call('ZREM', KEYS[1], ARGV[1]) end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1
