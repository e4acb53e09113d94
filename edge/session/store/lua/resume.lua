-- ARGV: epoch, offset.
local row = find()
if not row or row.deleted then return {'none'} end
row = trust(row)
local offset, recovered = tonumber(ARGV[4]), 0
if row.epoch == ARGV[3] then
  if offset > row.head then
    row = renew(row)
  elseif offset >= row.tail - 1 then
    recovered = 1
  end
end
return {'ok', row.epoch, row.tail, row.head, recovered, row.run}
