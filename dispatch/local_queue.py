"""The embedded queue: a SQLite database that several processes fill and empty at once.

Comes in: envelopes, each once as long as its id is remembered. Goes out: rows, leased by session as
``dispatch.outbox`` says, so that ``Dispatcher(LocalQueue(path), sink)`` is a consumer of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import msgspec

from dispatch import local_tables as tables
from dispatch.errors import Refused, Unreachable
from dispatch.local_tables import DeadLetter, LocalRow, Numbered
from dispatch.local_thread import LocalThread, T
from dispatch.messages import Envelope

__all__ = ["DEFAULT_KEEPING", "DeadLetter", "Keeping", "LocalQueue", "LocalRow"]


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """How much the queue holds, and for how long it remembers."""

    max_waiting: int = 1_000_000
    """While so many messages wait, no more are taken."""
    retention_s: float = 4 * 86400.0
    """So long dead letters are kept, and ids are known of messages that were taken."""
    max_seen: int = 1_000_000
    """So many ids are known at most; the oldest are forgotten."""


DEFAULT_KEEPING = Keeping()


class LocalQueue:
    """An ``Outbox`` in a file. Every method raises ``Unreachable`` when the file cannot be used.

    ``durability="full"`` waits for the disk with each commit; ``normal`` loses the last messages
    when the machine loses its power, and nothing when a process is killed.
    """

    def __init__(
        self,
        path: str | Path,
        keeping: Keeping = DEFAULT_KEEPING,
        *,
        durability: Literal["normal", "full"] = "normal",
        deadline_s: float = 5.0,
    ) -> None:
        self._path = Path(path)
        self._keeping = keeping
        self._is_synchronous = durability == "full"
        self._deadline_s = deadline_s
        self._thread: LocalThread | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Nothing: the file is opened, and made if there is none, when it is first needed."""
        return None

    async def close(self) -> None:
        """Finish what was asked for."""
        if self._thread is not None:
            await self._thread.close()
            self._thread = None

    def _at_work(self) -> LocalThread:
        """The thread; another one when the last could not open the file."""
        if self._thread is None or self._thread.has_ended:
            self._thread = LocalThread(
                self._path,
                lambda path: tables.connect(path, is_synchronous=self._is_synchronous),
                self._deadline_s,
            )
        return self._thread

    async def _read(self, work: Callable[[tables.Database], T]) -> T:
        return await self._at_work().read(work)

    async def _change(self, work: Callable[[tables.Database], T]) -> T:
        return await self._at_work().change(work)

    async def _forgetting(self, work: Callable[[tables.Database], T]) -> T:
        """A change that also forgets dead letters which were kept long enough."""

        def both(db: tables.Database) -> T:
            tables.forget_letters(db, self._keeping.retention_s)
            return work(db)

        return await self._change(both)

    async def put(self, envelopes: Sequence[Envelope]) -> int:
        """Append what is not known yet; how many, from the first on, are in the queue now.

        ``Unreachable`` when it is full, ``Refused`` for an id that is not ``<session>:<offset>``:
        both only when there is none.
        """
        numbered: list[Numbered] = []
        for envelope in envelopes:
            try:
                numbered.append(number(envelope))
            except Refused:
                if not numbered:
                    raise
                break
        keeping = self._keeping
        count = await self._forgetting(
            lambda db: tables.put(
                db, numbered, keeping.max_waiting, keeping.retention_s, keeping.max_seen
            )
        )
        if not count and numbered:
            raise Unreachable(f"the queue is full: {keeping.max_waiting} messages wait in it")
        return count

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[LocalRow]:
        if not await self._read(tables.any_due):
            return []
        return await self._change(lambda db: tables.claim(db, owner, limit, lease_s))

    async def ack(self, owner: str, rows: Sequence[LocalRow]) -> None:
        await self._change(lambda db: tables.ack(db, owner, rows))

    async def retry(self, owner: str, row: LocalRow, delay_s: float) -> None:
        await self._change(lambda db: tables.retry(db, owner, row, delay_s))

    async def bury(self, owner: str, row: LocalRow, reason: str) -> None:
        await self._forgetting(lambda db: tables.bury(db, owner, row, reason))

    async def outbox_size(self) -> int:
        return await self._read(tables.size)

    async def oldest_ms(self) -> int | None:
        return await self._read(tables.oldest_ms)

    async def shed(self, keep: int) -> int:
        return await self._forgetting(lambda db: tables.shed(db, keep))

    async def hasten(self, ahead_s: float) -> None:
        if await self._read(lambda db: tables.any_later(db, ahead_s)):
            await self._change(lambda db: tables.hasten(db, ahead_s))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """What was given up within the retention, oldest first."""
        return await self._forgetting(lambda db: tables.dead_letters(db, limit))

    async def redrive(self, letters: Sequence[DeadLetter]) -> int:
        """Put dead letters back at the end of their sessions; how many were there."""
        return await self._forgetting(lambda db: tables.redrive(db, letters))


def number(envelope: Envelope) -> Numbered:
    """An envelope and its offset."""
    offset = envelope.message_id.removeprefix(f"{envelope.session}:")
    if not (offset.isascii() and offset.isdigit() and len(offset) <= 18):
        raise Refused(f"{envelope.message_id!r} is not <session>:<offset>", final=True)
    return int(offset), envelope
