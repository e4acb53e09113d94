"""The embedded engine: one SQLite database (WAL) that all workers of a machine share.

What is committed survives the death of any process. With ``durability="full"`` it survives a power
cut as well; with ``normal`` the last moments may be missing after one, and then every session gets
a new epoch, as it does when the database was replaced by another copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge.errors import HistoryLost, StoreError, StoreUnavailable
from edge.logs import get_logger
from edge.session.store import sqlite_log as log
from edge.session.store import sqlite_outbox as outbox_rows
from edge.session.store.interface import (
    MAX_EXPIRED,
    MAX_PAGE,
    SIGNAL_MAX_BYTES,
    DeadLetter,
    Draft,
    Durability,
    Grant,
    Head,
    Listener,
    OutboxRow,
    Page,
    Record,
    Resumed,
    SessionDetail,
    SessionInfo,
    SessionStore,
    Signal,
    check_name,
    now_ms,
)
from edge.session.store.listeners import Listeners
from edge.session.store.sqlite_notify import Notifier
from edge.session.store.sqlite_schema import connect, mark_clean, prepare
from edge.session.store.sqlite_thread import SqliteThread, translated

LOOK_S = 1.0
"""How long a listener may be left waiting when its wake-up was dropped."""

logger = get_logger(__name__)
T = TypeVar("T")


class SqliteStore(SessionStore):
    """A store in the file ``path``; each worker opens its own on the same file."""

    def __init__(
        self, path: Path, durability: Durability = "normal", deadline_s: float = 5.0
    ) -> None:
        self._path = path
        self._durability: Durability = durability
        self._deadline_s = deadline_s
        self._listeners = Listeners()
        self._notifier = Notifier(path.with_suffix(".signals"), self._listeners.tell)
        self._grown: dict[str, int] = {}
        self._mine: dict[str, int] = {}
        """Where the logs stood that this worker wrote since the last look."""
        self._version = -1
        self._looked_ms = 0
        self._locks: list[int] = []

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            distrusted = await asyncio.to_thread(self._prepare)
            self._notifier.open()
        except sqlite3.Error as error:
            self._release()
            raise translated(error) from error
        except OSError as error:
            self._release()
            raise StoreUnavailable(
                f"the session store cannot use {self._path.parent}: {error.strerror}; "
                "give edgescribe a data directory that it may write"
            ) from error
        if distrusted:
            logger.warning("history may be incomplete: new epochs", sessions=distrusted)
        open_file = partial(connect, self._path, self._durability)
        self._writer = SqliteThread(
            open_file, lock=self._locks[0], committed=self._committed, deadline_s=self._deadline_s
        )
        self._reader = SqliteThread(open_file, deadline_s=self._deadline_s)
        self._writer.start()
        self._reader.start()
        self._looking = asyncio.create_task(self._look())

    def _prepare(self) -> int:
        """Open what all processes share: the file of the writers' lock, and that of who is here."""
        for suffix in (".write-lock", ".open-lock"):
            path = self._path.with_suffix(suffix)
            self._locks.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        writers, present = self._locks
        fcntl.flock(writers, fcntl.LOCK_EX)
        try:
            is_first = is_alone(present)
            connection = connect(self._path, self._durability)
            try:
                seal = self._path.with_suffix(".seal")
                return prepare(connection, seal, self._durability, is_first=is_first)
            finally:
                fcntl.flock(present, fcntl.LOCK_SH)
                connection.close()
        finally:
            fcntl.flock(writers, fcntl.LOCK_UN)

    async def close(self) -> None:
        self._looking.cancel()
        await asyncio.wait([self._looking])
        self._notifier.close()
        await self._reader.close()
        await self._writer.close()
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        """The last to leave brings all to the disk."""
        writers, present = self._locks
        fcntl.flock(writers, fcntl.LOCK_EX)
        try:
            if is_alone(present):
                connection = connect(self._path, self._durability)
                mark_clean(connection)
                connection.close()
        except sqlite3.Error as error:
            logger.warning("the session store was not closed cleanly", reason=str(error))
        finally:
            self._release()

    def _release(self) -> None:
        for lock in self._locks:
            os.close(lock)
        self._locks = []

    def _committed(self) -> None:
        """In the writer's thread, after a commit: tell this worker and the others."""
        if not self._grown:
            return
        signals = [Signal(session, head) for session, head in self._grown.items()]
        self._grown = {}
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, signals)
        self._notifier.send(signals)

    def _tell(self, signals: list[Signal]) -> None:
        for signal in signals:
            self._listeners.tell(signal)

    async def _look(self) -> None:
        """Now and then wake up those whose sessions others changed: datagrams get lost."""
        seen: dict[str, log.Standing] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._listeners:
                continue
            began_ms = now_ms()
            try:
                version = await self._reader.run(data_version)
                if version == self._version:
                    continue
                found = await self._reader.run(partial(log.standings, self._listeners.names()))
            except (StoreError, sqlite3.Error):
                continue
            self._version = version
            mine, self._mine = self._mine, {}
            for session, standing in found.items():
                # Of what this worker wrote itself its listeners have heard.
                if mine.get(session) == standing.head and session in seen:
                    continue
                if seen.get(session) != standing or standing.changed_ms >= self._looked_ms:
                    self._listeners.tell(Signal(session))
            seen, self._looked_ms = found, began_ms

    def _append_now(
        self,
        grant: Grant,
        batch: str,
        drafts: Sequence[Draft],
        outbox: Sequence[tuple[int, bytes]],
        db: sqlite3.Connection,
    ) -> int | HistoryLost:
        answer = log.append(db, grant, batch, drafts, outbox)
        self._grown[grant.session] = 0 if isinstance(answer, HistoryLost) else answer
        self._mine[grant.session] = self._grown[grant.session]
        return answer

    async def open_track(self, session: str, track: str) -> Grant:
        check_name(session)
        check_name(track)

        def work(db: sqlite3.Connection) -> Grant:
            grant = log.open_track(db, session, track)
            self._grown[session] = 0
            return grant

        return await self._writer.run(work)

    async def _append(
        self,
        grant: Grant,
        batch: str,
        drafts: Sequence[Draft],
        outbox: Sequence[tuple[int, bytes]],
    ) -> int:
        check_name(grant.session)
        answer = await self._writer.run(partial(self._append_now, grant, batch, drafts, outbox))
        if isinstance(answer, HistoryLost):
            raise answer
        return answer

    async def read(self, session: str, after: int, limit: int = MAX_PAGE) -> Page | None:
        count = min(limit, MAX_PAGE)
        return await self._reader.run(lambda db: log.read(db, session, after, count))

    async def head(self, session: str) -> Head | None:
        row = await self._reader.run(lambda db: log.live(db, session))
        return row.place if row else None

    async def resume(self, session: str, epoch: str, offset: int) -> Resumed | None:
        place = await self.head(session)
        if place is None:
            return None
        if place.epoch != epoch or offset <= place.head:
            return Resumed(place, place.epoch == epoch and offset >= place.tail - 1)
        return await self._change(session, lambda db: log.resume(db, session, epoch, offset))

    async def clear(self, session: str) -> Head:
        return await self._change(session, lambda db: log.clear(db, check_name(session)))

    async def _change(self, session: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write something that listeners of the session must look at."""

        def and_signal(db: sqlite3.Connection) -> T:
            answer = work(db)
            self._grown.setdefault(session, 0)
            return answer

        return await self._writer.run(and_signal)

    async def get(self, scope: str, family: str, key: str) -> Record | None:
        return await self._reader.run(lambda db: log.get(db, scope, family, key))

    async def records(self, scope: str, family: str) -> list[Record]:
        return await self._reader.run(lambda db: log.records(db, scope, family))

    async def put(
        self, scope: str, family: str, key: str, body: bytes, version: int, ttl_s: float = 0.0
    ) -> int:
        for name in (scope, family, key):
            check_name(name)
        return await self._change(
            scope, lambda db: log.put(db, scope, family, key, body, version, ttl_s)
        )

    async def drop(self, scope: str, family: str, key: str, version: int) -> None:
        await self._change(scope, lambda db: log.drop(db, scope, family, key, version))

    def listen(self, session: str, listener: Listener) -> Callable[[], None]:
        return self._listeners.add(session, listener)

    async def listening(self, session: str) -> None:
        """Nothing to wait for: this worker's socket hears of all sessions from the start."""

    def publish(self, session: str, body: bytes) -> None:
        if len(body) > SIGNAL_MAX_BYTES:
            raise ValueError(f"a signal has at most {SIGNAL_MAX_BYTES} bytes")
        signal = Signal(session, 0, body)
        self._notifier.send([signal])
        self._loop.call_soon(self._listeners.tell, signal)

    async def sessions(self, after: str = "", limit: int = 100) -> list[SessionInfo]:
        return await self._reader.run(lambda db: log.sessions(db, after, limit))

    async def detail(self, session: str) -> SessionDetail | None:
        return await self._reader.run(lambda db: log.detail(db, session))

    async def delete(self, session: str) -> bool:
        return await self._change(session, lambda db: log.delete(db, session))

    async def expire(self, unchanged_s: float, limit: int = MAX_EXPIRED) -> list[str]:
        unchanged_ms = int(unchanged_s * 1000)
        return await self._writer.run(lambda db: log.expire(db, unchanged_ms, limit))

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[OutboxRow]:
        if not await self._reader.run(outbox_rows.any_due):
            return []
        return await self._writer.run(lambda db: outbox_rows.claim(db, owner, limit, lease_s))

    async def ack(self, owner: str, rows: Sequence[OutboxRow]) -> None:
        await self._writer.run(lambda db: outbox_rows.ack(db, owner, rows))

    async def retry(self, owner: str, row: OutboxRow, delay_s: float) -> None:
        await self._writer.run(lambda db: outbox_rows.retry(db, owner, row, delay_s))

    async def bury(self, owner: str, row: OutboxRow, reason: str) -> None:
        await self._writer.run(lambda db: outbox_rows.bury(db, owner, row, reason))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        return await self._reader.run(lambda db: outbox_rows.dead_letters(db, limit))

    async def redrive(self, letters: Sequence[DeadLetter]) -> int:
        return await self._writer.run(lambda db: outbox_rows.redrive(db, letters))

    async def outbox_size(self) -> int:
        return await self._reader.run(outbox_rows.size)

    async def oldest_ms(self) -> int | None:
        return await self._reader.run(outbox_rows.oldest_ms)

    async def hasten(self, ahead_s: float) -> None:
        if await self._reader.run(lambda db: outbox_rows.any_later(db, ahead_s)):
            await self._writer.run(lambda db: outbox_rows.hasten(db, ahead_s))

    async def shed(self, keep: int) -> int:
        return await self._writer.run(lambda db: outbox_rows.shed(db, keep))


def data_version(db: sqlite3.Connection) -> int:
    """Another number after every commit of another connection."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def is_alone(lock: int) -> bool:
    """Whether no other process holds this file's lock; then we do."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
