-- A record's value is version:expires_ms:body.
local function unpacked(value, now)
  if not value then return nil end
  local version, expires, body = string.match(value, '^(%d+):(%d+):(.*)$')
  expires = tonumber(expires)
  if expires > 0 and expires <= now then return nil end
  return tonumber(version), body
end
