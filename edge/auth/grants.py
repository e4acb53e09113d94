"""What a credential allows, and what is said when it does not."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from edge.errors import EdgescribeError

Scope = Literal["ingest", "read", "admin", "deploy"]
"""Send audio and work on one's meetings; read sessions; remove and look inside; the router."""
SCOPES: frozenset[str] = frozenset(get_args(Scope))
USUAL: frozenset[str] = frozenset(("ingest", "read"))


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """How much one key may use; 0: any amount."""

    connections: int = 0
    tracks: int = 0
    requests_per_s: int = 0
    audio_s_per_day: int = 0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A credential that is good. ``name`` is for logs and counts; it is no secret."""

    name: str
    scopes: frozenset[str]
    session: str | None = None
    """The one session it is good for; None: all."""
    allowance: Allowance = Allowance()
    audio_s: float | None = None
    """Seconds of audio that may be sent with this very token."""
    meter: str = ""
    """What its use is counted under, where that is not its name."""
    expires_unix_s: float | None = None
    key_id: str | None = None
    """The stored key that it comes from, which may be removed; None: another credential."""

    def has(self, *wanted: str) -> bool:
        """Whether one of these scopes, or ``admin``, is among its own."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(wanted)


class Denied(EdgescribeError):
    """A request that is not let in: 401 without a good credential, 403 with one for other things,
    429 for too many. The text never tells which part of a credential was wrong."""

    def __init__(self, status: int, code: str, detail: str, retry_after_s: int = 0) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        super().__init__(detail)


def unknown() -> Denied:
    """No credential, or none that is known."""
    return Denied(401, "unauthorized", "Give a key or a token that is good here: docs/security.md")


def forbidden(detail: str) -> Denied:
    """A good credential that does not allow this."""
    return Denied(403, "forbidden", detail)


def parse_scopes(text: str) -> frozenset[str]:
    """Scopes of ``ingest+read`` or ``ingest read``; raises ``ValueError``."""
    scopes = frozenset(text.replace("+", " ").split())
    if not scopes or not scopes <= SCOPES:
        raise ValueError(f"scopes are of {', '.join(sorted(SCOPES))}")
    return scopes
