"""Work that one worker at a time does for a session: a record that runs out by itself.

Comes in: who wants to work. Goes out: whether it may, and whether it still does. One that dies is
followed by another when its lease has run out.
"""

from __future__ import annotations

import secrets

from edge.errors import Conflict
from edge.session.store.interface import SessionStore

FAMILY = "lease"


class Lease:
    """The right to do some work until it runs out; made by ``take``."""

    def __init__(
        self, store: SessionStore, scope: str, key: str, version: int, token: bytes, ttl_s: float
    ) -> None:
        self._store = store
        self._scope = scope
        self._key = key
        self._version = version
        self._token = token
        self._ttl_s = ttl_s

    async def renew(self) -> bool:
        """Have it from now on for as long again; False when it is another's."""
        try:
            self._version = await self._store.put(
                self._scope, FAMILY, self._key, self._token, self._version, self._ttl_s
            )
        except Conflict as conflict:
            if conflict.body != self._token:
                return False
            # Stored before an answer that never came.
            self._version = conflict.version
        return True

    async def release(self) -> None:
        """The work is done; another's lease stays."""
        try:
            await self._store.drop(self._scope, FAMILY, self._key, self._version)
        except Conflict:
            return


async def take(
    store: SessionStore, scope: str, key: str, ttl_s: float, *, steal: bool = False
) -> Lease | None:
    """Take a lease that nobody has, or with ``steal`` anybody's; None when it is another's.

    Raises what the store raises.
    """
    token = secrets.token_hex(8).encode()
    version = 0
    while True:
        try:
            version = await store.put(scope, FAMILY, key, token, version, ttl_s)
            return Lease(store, scope, key, version, token, ttl_s)
        except Conflict as conflict:
            if conflict.body != token and not steal:
                return None
            if conflict.body == token:
                return Lease(store, scope, key, conflict.version, token, ttl_s)
            version = conflict.version
