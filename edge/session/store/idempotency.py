"""Answers of requests that carry an ``Idempotency-Key``, kept for 24 hours.

The first request with a key reserves it, before it does anything; the others get its answer, are
told that it is still at work, or that they ask for something else under the same key.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from edge.errors import Conflict
from edge.session.store.interface import SessionStore

REMEMBERED_S = 86400.0
ANSWERS = "idempotency"


class Reservation(msgspec.Struct, frozen=True):
    """What became of a key: ``new`` may go on, ``done`` has ``answer``; the others must not."""

    state: Literal["new", "running", "done", "other"]
    version: int
    answer: bytes = b""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    asked: bytes
    is_done: bool
    answer: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


async def reserve(
    store: SessionStore, session: str, key: str, request: bytes, running_s: float = 60.0
) -> Reservation:
    """Claim a key for a request; one that never finishes loses it after ``running_s``."""
    asked = hashlib.sha256(request).digest()
    try:
        kept = _encode(_Kept(asked, False, b""))
        return Reservation("new", await store.put(session, ANSWERS, key, kept, 0, running_s))
    except Conflict as conflict:
        known = _decode(conflict.body)
        if known.asked != asked:
            return Reservation("other", conflict.version)
        state: Literal["running", "done"] = "done" if known.is_done else "running"
        return Reservation(state, conflict.version, known.answer)


async def finish(
    store: SessionStore,
    session: str,
    key: str,
    request: bytes,
    reservation: Reservation,
    answer: bytes,
) -> None:
    """Keep the answer; ``Conflict`` when the reservation had run out and another has the key."""
    kept = _encode(_Kept(hashlib.sha256(request).digest(), True, answer))
    await store.put(session, ANSWERS, key, kept, reservation.version, REMEMBERED_S)


async def release(store: SessionStore, session: str, key: str, reservation: Reservation) -> None:
    """The request failed without an effect: let it be tried again."""
    await store.drop(session, ANSWERS, key, reservation.version)
