"""The embedded queue: a SQLite database that several processes put into and take from.

Comes in: envelopes. Goes out: rows under a lease, each session in order, until they are
acknowledged: it is an ``Outbox``, and ``Dispatcher`` is its consumer. What was acknowledged is
remembered for a while, so that a message that is put again is not delivered again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from dispatch.errors import Unreachable
from dispatch.messages import Envelope

T = TypeVar("T")

VERSION = 1
REMEMBERED_S = 24 * 3600.0
"""How long a message that was delivered is known by its id."""
DEAD_LETTERS_KEPT_S = 4 * 86400.0
BUSY_S = 5.0
MAX_SHED = 1000
FORGET_EVERY = 500
"""Puts between two looks for what has been remembered long enough."""

TABLES = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, id TEXT NOT NULL,
    epoch TEXT NOT NULL, attempt INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX messages_by_session ON messages (session, number);
CREATE TABLE known (
    id TEXT NOT NULL, epoch TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (id, epoch)) WITHOUT ROWID;
CREATE INDEX known_by_age ON known (at_ms);
CREATE TABLE deliveries (
    session TEXT PRIMARY KEY, owner TEXT NOT NULL, due_ms INTEGER NOT NULL,
    upto INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX deliveries_by_due ON deliveries (due_ms);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY, session TEXT NOT NULL, id TEXT NOT NULL, epoch TEXT NOT NULL,
    attempt INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL, body BLOB NOT NULL,
    reason TEXT NOT NULL, died_ms INTEGER NOT NULL);
"""
COLUMNS = "number, session, id, epoch, attempt, enqueued_ms, body"


class Waiting(msgspec.Struct, frozen=True):
    """A message in the queue; ``number`` orders those of a session."""

    number: int
    session: str
    id: str
    epoch: str
    attempt: int
    enqueued_ms: int
    body: bytes

    @property
    def offset(self) -> int:
        """The last part of its id."""
        return int(self.id.rpartition(":")[2])


class DeadMessage(msgspec.Struct, frozen=True):
    """A message that was given up: why, and when (ms since 1970)."""

    row: Waiting
    reason: str
    died_ms: int


class LocalQueue:
    """One process's way to the queue; ``open`` comes first.

    Calls raise ``Unreachable`` while the database cannot be used (a full disk, a lock held for
    longer than 5 s). Its work is done in one thread, a transaction a call.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "local-queue")
        self._db: sqlite3.Connection | None = None
        self._puts = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the database if there is none; raises ``Unreachable``."""
        await self._run(lambda db: None)

    async def close(self) -> None:
        """Finish what was asked for and let go."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def put(self, envelopes: Sequence[Envelope]) -> int:
        """Take messages, in order; how many of them were new."""
        self._puts += 1
        is_time = self._puts % FORGET_EVERY == 1

        def work(db: sqlite3.Connection) -> int:
            if is_time:
                _forget(db)
            return _put(db, envelopes)

        return await self._run(work)

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[Waiting]:
        """See ``Outbox.claim``."""
        return await self._run(lambda db: _claim(db, owner, limit, lease_s))

    async def ack(self, owner: str, rows: Sequence[Waiting]) -> None:
        """See ``Outbox.ack``."""
        await self._run(lambda db: _ack(db, owner, rows))

    async def retry(self, owner: str, row: Waiting, delay_s: float) -> None:
        """See ``Outbox.retry``."""
        await self._run(lambda db: _retry(db, owner, row, delay_s))

    async def bury(self, owner: str, row: Waiting, reason: str) -> None:
        """See ``Outbox.bury``."""
        await self._run(lambda db: _bury(db, owner, row, reason))

    async def outbox_size(self) -> int:
        """See ``Outbox.outbox_size``."""
        return await self._run(_size)

    async def oldest_ms(self) -> int | None:
        """See ``Outbox.oldest_ms``."""
        return await self._run(_oldest_ms)

    async def shed(self, keep: int) -> int:
        """See ``Outbox.shed``."""
        return await self._run(lambda db: _shed(db, keep))

    async def hasten(self, ahead_s: float) -> None:
        """See ``Outbox.hasten``."""
        await self._run(lambda db: _hasten(db, ahead_s))

    async def dead_letters(self, limit: int = 100) -> list[DeadMessage]:
        """What was given up within four days, oldest first."""
        return await self._run(lambda db: _dead(db, limit))

    async def redrive(self, letters: Sequence[DeadMessage]) -> int:
        """Put dead letters back at the end of their sessions; how many were still there."""
        return await self._run(lambda db: _redrive(db, letters))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._transact, work)
        except (sqlite3.Error, OSError) as error:
            raise Unreachable(f"the local queue {self.path.name}: {error}") from error

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._db is None:
            self._db = _connect(self.path)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            answer = work(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return answer

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-2000")
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"schema version {version}, expected {VERSION}")
        if version == 0:
            for statement in TABLES.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _put(db: sqlite3.Connection, envelopes: Sequence[Envelope]) -> int:
    now, sessions, count = _now_ms(), set[str](), 0
    for envelope in envelopes:
        known = db.execute(
            "INSERT OR IGNORE INTO known VALUES (?, ?, ?)",
            (envelope.message_id, envelope.epoch, now),
        )
        if not known.rowcount:
            continue
        db.execute(
            "INSERT INTO messages VALUES (NULL, ?, ?, ?, 0, ?, ?)",
            (
                envelope.session,
                envelope.message_id,
                envelope.epoch,
                envelope.enqueued_ms,
                envelope.body,
            ),
        )
        sessions.add(envelope.session)
        count += 1
    db.executemany(
        "INSERT OR IGNORE INTO deliveries VALUES (?, '', ?, 0)",
        [(session, now) for session in sessions],
    )
    return count


def _forget(db: sqlite3.Connection) -> None:
    """What was delivered, or given up, long ago; nothing that still waits."""
    now = _now_ms()
    db.execute(
        "DELETE FROM known WHERE at_ms < ? AND NOT EXISTS (SELECT 1 FROM messages m WHERE"
        " m.id = known.id AND m.epoch = known.epoch)",
        (now - int(REMEMBERED_S * 1000),),
    )
    db.execute("DELETE FROM dead WHERE died_ms < ?", (now - int(DEAD_LETTERS_KEPT_S * 1000),))


def _claim(db: sqlite3.Connection, owner: str, limit: int, lease_s: float) -> list[Waiting]:
    now, claimed = _now_ms(), list[Waiting]()
    due = db.execute(
        "SELECT session FROM deliveries WHERE due_ms <= ? ORDER BY due_ms LIMIT ?", (now, limit)
    ).fetchall()
    for (session,) in due:
        if len(claimed) >= limit:
            break
        rows = db.execute(
            f"SELECT {COLUMNS} FROM messages WHERE session = ? ORDER BY number LIMIT ?",
            (session, limit - len(claimed)),
        ).fetchall()
        claimed += [Waiting(*row) for row in rows]
        if rows:
            db.execute(
                "UPDATE deliveries SET owner = ?, due_ms = ?, upto = ? WHERE session = ?",
                (owner, now + int(lease_s * 1000), rows[-1][0], session),
            )
        else:
            db.execute("DELETE FROM deliveries WHERE session = ?", (session,))
    return claimed


def _holds(db: sqlite3.Connection, owner: str, session: str) -> bool:
    """Whether this owner was the last to lease the session."""
    query = "SELECT 1 FROM deliveries WHERE session = ? AND owner = ?"
    return db.execute(query, (session, owner)).fetchone() is not None


def _release(db: sqlite3.Connection, session: str, due_ms: int) -> None:
    """Give a session back, or forget it when nothing of it waits."""
    query = "SELECT 1 FROM messages WHERE session = ? LIMIT 1"
    if db.execute(query, (session,)).fetchone():
        db.execute(
            "UPDATE deliveries SET owner = '', due_ms = ? WHERE session = ?", (due_ms, session)
        )
    else:
        db.execute("DELETE FROM deliveries WHERE session = ?", (session,))


def _settle(db: sqlite3.Connection, session: str) -> None:
    """Give a session back once all rows of its lease are settled."""
    query = (
        "SELECT 1 FROM messages m JOIN deliveries d ON d.session = m.session"
        " WHERE d.session = ? AND m.number <= d.upto LIMIT 1"
    )
    if not db.execute(query, (session,)).fetchone():
        _release(db, session, _now_ms())


def _ack(db: sqlite3.Connection, owner: str, rows: Sequence[Waiting]) -> None:
    for session in {row.session for row in rows}:
        if _holds(db, owner, session):
            numbers = [(row.number,) for row in rows if row.session == session]
            db.executemany("DELETE FROM messages WHERE number = ?", numbers)
            _settle(db, session)


def _retry(db: sqlite3.Connection, owner: str, row: Waiting, delay_s: float) -> None:
    if _holds(db, owner, row.session):
        db.execute("UPDATE messages SET attempt = attempt + 1 WHERE number = ?", (row.number,))
        _release(db, row.session, _now_ms() + int(delay_s * 1000))


def _kill(db: sqlite3.Connection, number: int, reason: str) -> None:
    """Move a row to the dead letters."""
    db.execute(
        f"INSERT INTO dead SELECT {COLUMNS}, ?, ? FROM messages WHERE number = ?",
        (reason, _now_ms(), number),
    )
    db.execute("DELETE FROM messages WHERE number = ?", (number,))


def _bury(db: sqlite3.Connection, owner: str, row: Waiting, reason: str) -> None:
    if _holds(db, owner, row.session):
        _kill(db, row.number, reason)
        _settle(db, row.session)


def _size(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])


def _oldest_ms(db: sqlite3.Connection) -> int | None:
    row = db.execute("SELECT enqueued_ms FROM messages ORDER BY number LIMIT 1").fetchone()
    return None if row is None else int(row[0])


def _shed(db: sqlite3.Connection, keep: int) -> int:
    over = min(max(_size(db) - keep, 0), MAX_SHED)
    rows = db.execute("SELECT number FROM messages ORDER BY number LIMIT ?", (over,)).fetchall()
    for (number,) in rows:
        _kill(db, number, "overflow")
    return len(rows)


def _hasten(db: sqlite3.Connection, ahead_s: float) -> None:
    now = _now_ms()
    db.execute(
        "UPDATE deliveries SET due_ms = ? WHERE due_ms > ?", (now, now + int(ahead_s * 1000))
    )


def _dead(db: sqlite3.Connection, limit: int) -> list[DeadMessage]:
    rows = db.execute(
        f"SELECT {COLUMNS}, reason, died_ms FROM dead WHERE died_ms >= ?"
        " ORDER BY died_ms, number LIMIT ?",
        (_now_ms() - int(DEAD_LETTERS_KEPT_S * 1000), limit),
    )
    return [DeadMessage(Waiting(*row[:7]), row[7], row[8]) for row in rows]


def _redrive(db: sqlite3.Connection, letters: Sequence[DeadMessage]) -> int:
    count = 0
    for letter in letters:
        number, session = letter.row.number, letter.row.session
        moved = db.execute(
            "INSERT INTO messages SELECT NULL, session, id, epoch, 0, ?, body FROM dead"
            " WHERE number = ?",
            (_now_ms(), number),
        )
        if moved.rowcount:
            db.execute("DELETE FROM dead WHERE number = ?", (number,))
            db.execute(
                "INSERT OR IGNORE INTO deliveries VALUES (?, '', ?, 0)", (session, _now_ms())
            )
            count += 1
    return count
