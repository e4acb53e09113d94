"""Requests that are done once however often they are sent: idempotency keys.

Comes in: a key of the client and the request's body. Goes out: the answer, made now or before. A
key is claimed in the store before anything is done, so that two who come at once, to whichever
workers, do it once; the answer is kept for a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable

from edge.errors import EdgescribeError, StoreError
from edge.session.store import idempotency
from edge.session.store.interface import SessionStore

CLAIMED_S = 90.0
"""How long a claim stands when its worker died; longer than anything takes that is done once."""
LOOK_AGAIN_S = 0.1


class OtherRequest(EdgescribeError):
    """The key was used before, with another body."""

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another body; take a new one")


class Once:
    """One worker's way to the keys."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def do(
        self, session: str, key: str, body: bytes, act: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """The answer of ``act``, and whether it is that of an earlier request with this key.

        While another request with the key is under way its answer is awaited. When ``act`` raises,
        or is cancelled, the key is free again. Makes the session. Raises ``OtherRequest``, and
        what the store and ``act`` raise.
        """
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        await self._store.ensure(session)
        while True:
            kept = await idempotency.reserve(self._store, session, name, body, CLAIMED_S)
            if kept.state == "other":
                raise OtherRequest
            if kept.state == "done":
                return kept.answer, True
            if kept.state == "new":
                break
            await asyncio.sleep(LOOK_AGAIN_S)
        try:
            answer = await act()
        except BaseException:
            with contextlib.suppress(StoreError):
                await idempotency.release(self._store, session, name, kept)
            raise
        # What was done is done: without a record a repetition does it again, as one always could.
        with contextlib.suppress(StoreError):
            await idempotency.finish(self._store, session, name, body, kept, answer)
        return answer, False
