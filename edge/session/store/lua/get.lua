-- KEYS: hash, family. ARGV: key, or none for all. Answer: key, version, body of each.
local now, answer = clock_us() / 1000, {}
local function add(key, value)
  local version, body = unpacked(value, now)
  if version then
    answer[#answer + 1] = {key, version, body}
  end
end
if ARGV[3] then
  add(ARGV[3], redis.call('HGET', KEYS[2], ARGV[3]))
else
  local all = redis.call('HGETALL', KEYS[2])
  for i = 1, #all, 2 do add(all[i], all[i + 1]) end
end
return answer
