"""Who is in a room: one expiring record a connection, kept alive by whoever carries it."""

from __future__ import annotations

from edge.errors import Conflict
from edge.session.store.interface import Record, SessionStore

PRESENCE = "presence"
ALIVE_S = 15.0
"""Longer than two heartbeats and than the 5 s a reconnect may take without being noticed."""


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
