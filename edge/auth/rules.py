"""Which scope each path asks for: one table, so that a path without a rule is found by a test.

Paths that are in no row ask for ``admin``: what was forgotten is not open.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, unquote

import msgspec

PUBLIC_PATHS = ("/health", "/ready", "/edgescribe.js", "/openapi.json")
PUBLIC_PREFIXES = ("/console",)
"""What a page needs before it can ask for a key; no word of a session is in it."""

RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("GET", "/status", ("read",)),
    ("GET", "/metrics", ("read",)),
    ("GET", "/sessions/metrics", ("read",)),
    ("GET", "/debug/tracks", ("admin",)),
    ("GET", "/v1/sessions", ("read",)),
    ("GET", "/v1/sessions/{session}", ("read",)),
    ("DELETE", "/v1/sessions/{session}", ("admin",)),
    ("GET", "/v1/sessions/{session}/audio", ("read",)),
    ("GET", "/v1/sessions/{session}/events", ("read",)),
    ("GET", "/v1/sessions/{session}/export", ("read",)),
    ("GET", "/v1/sessions/{session}/result", ("read",)),
    ("GET", "/v1/sessions/{session}/state", ("read",)),
    ("GET", "/v1/sessions/{session}/utterances", ("read",)),
    ("POST", "/v1/sessions/{session}/asr-reset", ("ingest",)),
    ("POST", "/v1/sessions/{session}/asr-run", ("ingest",)),
    ("POST", "/v1/sessions/{session}/config", ("ingest",)),
    ("POST", "/v1/sessions/{session}/finalize", ("ingest",)),
    ("POST", "/v1/sessions/{session}/resolve", ("ingest",)),
    ("POST", "/v1/audio/transcriptions", ("ingest",)),
)
"""Method, path as in the OpenAPI document, scopes of which one is enough. HEAD is as GET."""

FOLLOWED = ("ingest", "read")
"""Sockets that are listened to, as well as spoken into: what a client does there, it says later."""
SPOKEN = ("ingest",)
RECORDERS = "/v1/audio/ws/"
CALLS = "/twilio"
SESSION_NAMES = ("sessionId", "session")
"""Parameters by which sockets are told their session."""


def introduces_itself(path: str) -> bool:
    """Whether clients of a socket's path may show their key after the handshake."""
    return path.startswith(RECORDERS) or path == CALLS


class Need(msgspec.Struct, frozen=True):
    """What a request asks for: one of these scopes, in this session (None: in none, or in all)."""

    scopes: tuple[str, ...]
    session: str | None = None
    is_of_session: bool = False
    """Whether a credential for one session can be enough."""


_ROWS = [
    (
        method,
        re.compile(re.escape(path).replace(r"\{session\}", "(?P<session>[^/]+)")),
        scopes,
        "{session}" in path,
    )
    for method, path, scopes in RULES
]


def is_public(method: str, path: str) -> bool:
    """Whether a path is answered to everybody."""
    if method not in ("GET", "HEAD", "OPTIONS"):
        return False
    return path in PUBLIC_PATHS or any(
        path == prefix or path.startswith(f"{prefix}/") for prefix in PUBLIC_PREFIXES
    )


def need_of_request(method: str, path: str) -> Need:
    """What a plain request asks for; ``path`` is without a query."""
    method = "GET" if method == "HEAD" else method
    for known, pattern, scopes, is_of_session in _ROWS:
        if method == known and (match := pattern.fullmatch(path)):
            session = unquote(match["session"], errors="replace") if is_of_session else None
            return Need(scopes, session, is_of_session)
    return Need(("admin",))


def need_of_socket(path: str, query: str, followed: Collection[str]) -> Need:
    """What a WebSocket asks for; ``followed`` are the paths that can be listened to as well."""
    scopes = FOLLOWED if path in followed else SPOKEN
    if path.startswith(RECORDERS):
        name = path[len(RECORDERS) :].partition("/")[0]
        return Need(scopes, unquote(name, errors="replace"), True)
    values = dict(reversed(parse_qsl(query, keep_blank_values=True))) if query else {}
    named = {values[name] for name in SESSION_NAMES if values.get(name)}
    # Which of two names counts is the protocol's choice, so that a credential for one is for none.
    return Need(scopes, named.pop() if len(named) == 1 else None, len(named) < 2)
