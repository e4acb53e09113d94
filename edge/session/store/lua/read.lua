-- KEYS: hash, stream. ARGV: after, limit. Writes only to give a distrusted session its new epoch.
local row = find()
if not row or row.deleted then return {'none'} end
row = trust(row)
local after, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local entries = {}
if limit > 0 and row.head > after then
  entries = redis.call('XRANGE', KEYS[2], text(after + 1) .. '-0', '+', 'COUNT', limit)
end
return {'ok', row.epoch, row.tail, row.head, entries, row.run}
