"""Native code: Opus and its containers, resampling, WebSocket frames, the short way of a packet.

Comes in: bytes. Goes out: bytes, numbers and typed errors. Anyone may call it; it imports nothing
of this project, keeps no global state but resampling filters, and each extension has a stub beside
it.
"""

from __future__ import annotations

from _native import opus


def info() -> dict[str, str]:
    """What this build is made of: libopus's version and how the extensions were compiled."""
    return {"libopus": opus.version(), "build": opus.build()}
