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

import msgspec

from edge.errors import Conflict, EdgescribeError, StoreError
from edge.session.store.interface import SessionStore

FAMILY = "once"
KEPT_S = 86_400.0
CLAIMED_S = 90.0
"""How long a claim stands when its worker died; longer than anything takes that is done once."""
LOOK_AGAIN_S = 0.1


class OtherRequest(EdgescribeError):
    """The key was used before, with another body."""

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another body; take a new one")


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a key: which body it came with, and the answer when there is one."""

    digest: str
    answer: bytes | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Outcome).decode


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
        digest = hashlib.sha256(body).hexdigest()
        await self._store.ensure(session)
        while True:
            outcome = await self._kept(session, name)
            if outcome is None:
                try:
                    claim = _encode(Outcome(digest))
                    version = await self._store.put(session, FAMILY, name, claim, 0, CLAIMED_S)
                except Conflict:
                    continue
                return await self._act(session, name, digest, version, act), False
            if outcome.digest != digest:
                raise OtherRequest
            if outcome.answer is not None:
                return outcome.answer, True
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _kept(self, session: str, name: str) -> Outcome | None:
        record = await self._store.get(session, FAMILY, name)
        return None if record is None else _decode(record.body)

    async def _act(
        self,
        session: str,
        name: str,
        digest: str,
        version: int,
        act: Callable[[], Awaitable[bytes]],
    ) -> bytes:
        try:
            answer = await act()
        except BaseException:
            with contextlib.suppress(StoreError):
                await self._store.drop(session, FAMILY, name, version)
            raise
        # What was done is done: without a record a repetition does it again, as one always could.
        with contextlib.suppress(StoreError):
            kept = _encode(Outcome(digest, answer))
            await self._store.put(session, FAMILY, name, kept, version, KEPT_S)
        return answer
