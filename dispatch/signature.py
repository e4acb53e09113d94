"""``X-Signature: t=<unix seconds>,v1=<hex>``: HMAC-SHA256 over ``<t>.<body>``."""

from __future__ import annotations

import hashlib
import hmac

HEADER = "X-Signature"
TOLERANCE_S = 300


def sign(secret: bytes, body: bytes, at_s: int) -> str:
    """The header's value."""
    return f"t={at_s},v1={_digest(secret, body, str(at_s))}"


def is_signed(
    secret: bytes, body: bytes, value: str, now_s: int, tolerance_s: int = TOLERANCE_S
) -> bool:
    """Whether the body was signed with the secret, not longer ago (or ahead) than tolerated."""
    parts = dict(part.strip().partition("=")[::2] for part in value.split(","))
    at = parts.get("t", "")
    if not (at.isascii() and at.isdigit() and len(at) <= 12):
        return False
    given = parts.get("v1", "").encode("ascii", "replace")
    is_ours = hmac.compare_digest(given, _digest(secret, body, at).encode())
    return is_ours and abs(now_s - int(at)) <= tolerance_s


def _digest(secret: bytes, body: bytes, at: str) -> str:
    return hmac.new(secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()
