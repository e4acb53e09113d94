"""Who is in a room: one expiring record a connection, kept alive by whoever carries it."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.errors import Conflict
from edge.session.store.interface import Record, SessionStore

PRESENCE = "presence"
ALIVE_S = 15.0
"""Longer than two heartbeats and than the 5 s a reconnect may take without being noticed."""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Who a connection is; the body of its record."""

    role: Literal["speaker", "listener", "admin", "media"]
    speaker: str = ""
    """The track it speaks on; empty for those that do not, or for several tags."""
    since_unix_ms: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Presence).decode


def encode_presence(presence: Presence) -> bytes:
    """The body for ``appear``."""
    return _encode(presence)


def decode_presence(body: bytes) -> Presence | None:
    """What a record's body says; None for one of another make."""
    try:
        return _decode(body)
    except msgspec.MsgspecError:
        return None


async def appear(
    store: SessionStore, session: str, connection: str, body: bytes, alive_s: float = ALIVE_S
) -> None:
    """Be seen for ``alive_s`` from now; call it again, at least twice as often, to stay."""
    version = 0
    while True:
        try:
            await store.put(session, PRESENCE, connection, body, version, alive_s)
            return
        except Conflict as conflict:
            version = conflict.version


async def leave(store: SessionStore, session: str, connection: str) -> None:
    """Be gone at once."""
    while (record := await store.get(session, PRESENCE, connection)) is not None:
        try:
            await store.drop(session, PRESENCE, connection, record.version)
        except Conflict:
            continue


async def present(store: SessionStore, session: str) -> list[Record]:
    """All connections that are alive, by name."""
    return await store.records(session, PRESENCE)
