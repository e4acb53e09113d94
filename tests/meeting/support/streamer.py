"""A client that keeps streaming chunks through whatever happens to its gateway."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count

from edge.demo.client import Disconnected, Unreachable
from edge.demo.recorder import (
    CHUNK_BYTES,
    Recorder,
    Refused,
    Role,
    ServerFrame,
    Stored,
    Unanswered,
    connect,
)

PAUSE_S = 0.03
"""Between two chunks: what is sent is also kept, at 32 kB apiece."""
UNACKED = 8
"""Chunks that may wait for their ack."""
LATE_EVERY, LATE_BY = 7, 4
"""Each seventh chunk is sent after the four that follow it."""
TWICE_EVERY = 11
LOST = (Disconnected, Unreachable, Refused, Unanswered)


def body_of(session: str, role: Role, seq: int) -> bytes:
    """The bytes of a chunk: no two have the same."""
    seed = hashlib.sha256(f"{session}/{role}/{seq}".encode()).digest()
    return seed * (CHUNK_BYTES // len(seed))


def numbers() -> Iterator[int]:
    """From 1 on, some late: a number comes again only where clients send it twice."""
    held: list[tuple[int, int]] = []
    for seq in count(1):
        if seq % LATE_EVERY == 0:
            held.append((seq + LATE_BY, seq))
        else:
            yield seq
        while held and held[0][0] <= seq:
            yield held.pop(0)[1]


class Streamer:
    """One role's client; several of one role may share their ``numbers``.

    A chunk without an ack is sent again on the next connection, as often as it takes.
    """

    def __init__(self, address: str, session: str, role: Role, numbers: Iterator[int]) -> None:
        self.session = session
        self.role = role
        self.acked: dict[int, ServerFrame] = {}
        self.connections = 0
        self._address = address
        self._numbers = numbers
        self._unacked: dict[int, None] = {}

    async def run(self) -> None:
        """Stream until it is cancelled."""
        while True:
            try:
                async with self.connected() as recorder:
                    await recorder.hello()
                    self.connections += 1
                    for seq in list(self._unacked):
                        await self._send(recorder, seq)
                    while True:
                        await recorder.room(UNACKED)
                        await asyncio.sleep(PAUSE_S)
                        seq = next(self._numbers)
                        self._unacked[seq] = None
                        await self._send(recorder, seq)
                        if seq % TWICE_EVERY == 0:
                            await self._send(recorder, seq)
            except LOST:
                await asyncio.sleep(0.05)

    async def finish(self) -> None:
        """Send what had no ack until it has one."""
        while self._unacked:
            try:
                async with self.connected() as recorder:
                    for seq in list(self._unacked):
                        await self._send(recorder, seq)
                    await recorder.all_acked()
            except LOST:
                await asyncio.sleep(0.05)

    async def held(self) -> Stored:
        """What the gateway says it has, to a client that comes back."""
        async with self.connected() as recorder:
            return (await recorder.hello()).ingest

    def connected(self) -> AbstractAsyncContextManager[Recorder]:
        """A connection."""
        return connect(self._address, session_id=self.session, role=self.role, on_frame=self._take)

    async def _send(self, recorder: Recorder, seq: int) -> None:
        await recorder.chunk(body_of(self.session, self.role, seq), seq)

    def _take(self, frame: ServerFrame) -> None:
        if frame.type == "ack" and frame.seq is not None:
            self.acked.setdefault(frame.seq, frame)
            self._unacked.pop(frame.seq, None)
