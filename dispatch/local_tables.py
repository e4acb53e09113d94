"""The embedded queue's tables: functions of a connection, called in its thread.

A session in which something waits has a row of ``deliveries``: who leases it, until when it is not
to be claimed again, and the last message that was leased.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from dispatch.messages import Envelope

Database = sqlite3.Connection
Numbered = tuple[int, Envelope]

VERSION = 1
MAX_SHED = 1000
MAX_FORGOTTEN = 1000
ROW = "session, number, offset, epoch, attempt, enqueued_ms, body"

TABLES = """
CREATE TABLE counts (waiting INTEGER NOT NULL, seen INTEGER NOT NULL);
INSERT INTO counts VALUES (0, 0);
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, offset INTEGER NOT NULL,
    epoch TEXT NOT NULL, attempt INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX messages_by_session ON messages (session, number);
CREATE TABLE deliveries (
    session TEXT PRIMARY KEY, owner TEXT NOT NULL, due_ms INTEGER NOT NULL,
    upto INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX deliveries_by_due ON deliveries (due_ms);
CREATE TABLE seen (
    number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, at_ms INTEGER NOT NULL);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY, session TEXT NOT NULL, offset INTEGER NOT NULL,
    epoch TEXT NOT NULL, attempt INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    body BLOB NOT NULL, reason TEXT NOT NULL, died_ms INTEGER NOT NULL);
CREATE INDEX dead_by_time ON dead (died_ms);
"""


class LocalRow(msgspec.Struct, frozen=True):
    """A message that waits; ``attempt`` counts deliveries that failed since it came here."""

    session: str
    number: int
    offset: int
    epoch: str
    attempt: int
    enqueued_ms: int
    body: bytes


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was given up: why, and when (ms since 1970)."""

    row: LocalRow
    reason: str
    died_ms: int


def connect(path: Path, *, is_synchronous: bool) -> Database:
    """A connection to tables that are there; transactions are begun by hand."""
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, cached_statements=256)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if is_synchronous else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint=4000")
        db.execute("PRAGMA journal_size_limit=67108864")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"schema version {version}, expected {VERSION}")
        if version == 0:
            db.executescript(f"BEGIN;{TABLES}PRAGMA user_version={VERSION};COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def put(
    db: Database, numbered: Sequence[Numbered], max_waiting: int, retention_s: float, max_seen: int
) -> int:
    """Append what is not known, until the queue is full; how many of the first are in it."""
    now = now_ms()
    forget_seen(db, now - int(retention_s * 1000), max_seen)
    room = max_waiting - size(db)
    added, taken = 0, 0
    for offset, envelope in numbered:
        name = digest(envelope)
        if added >= room:
            if not db.execute("SELECT 1 FROM seen WHERE name = ?", (name,)).fetchone():
                break
        elif db.execute("INSERT OR IGNORE INTO seen VALUES (NULL, ?, ?)", (name, now)).rowcount:
            db.execute(
                "INSERT INTO messages VALUES (NULL, ?, ?, ?, 0, ?, ?)",
                (envelope.session, offset, envelope.epoch, envelope.enqueued_ms, envelope.body),
            )
            expect(db, envelope.session, now)
            added += 1
        taken += 1
    db.execute("UPDATE counts SET waiting = waiting + ?, seen = seen + ?", (added, added))
    return taken


def digest(envelope: Envelope) -> bytes:
    """What is remembered of a message."""
    name = f"{envelope.epoch}/{envelope.message_id}".encode()
    return hashlib.blake2b(name, digest_size=12).digest()


def expect(db: Database, session: str, due_ms: int) -> None:
    """Something waits in this session."""
    db.execute("INSERT OR IGNORE INTO deliveries VALUES (?, '', ?, 0)", (session, due_ms))


def forget_seen(db: Database, before_ms: int, max_seen: int) -> None:
    """A part of what is too old, or more than is remembered."""
    oldest = db.execute("SELECT number, at_ms FROM seen ORDER BY number LIMIT 1").fetchone()
    if oldest is None:
        return
    over = db.execute("SELECT seen FROM counts").fetchone()[0] - max_seen
    if over <= 0 and oldest[1] >= before_ms:
        return
    upto = oldest[0] + (min(over, MAX_FORGOTTEN) if over > 0 else MAX_FORGOTTEN)
    gone = db.execute(
        "DELETE FROM seen WHERE number < ? AND (? OR at_ms < ?)", (upto, over > 0, before_ms)
    ).rowcount
    db.execute("UPDATE counts SET seen = seen - ?", (gone,))


def any_due(db: Database) -> bool:
    query = "SELECT 1 FROM deliveries WHERE due_ms <= ? LIMIT 1"
    return db.execute(query, (now_ms(),)).fetchone() is not None


def claim(db: Database, owner: str, limit: int, lease_s: float) -> list[LocalRow]:
    now, claimed = now_ms(), list[LocalRow]()
    due = db.execute(
        "SELECT session FROM deliveries WHERE due_ms <= ? ORDER BY due_ms LIMIT ?", (now, limit)
    ).fetchall()
    for (session,) in due:
        if len(claimed) >= limit:
            break
        rows = db.execute(
            f"SELECT {ROW} FROM messages WHERE session = ? ORDER BY number LIMIT ?",
            (session, limit - len(claimed)),
        ).fetchall()
        claimed += [LocalRow(*row) for row in rows]
        if rows:
            db.execute(
                "UPDATE deliveries SET owner = ?, due_ms = ?, upto = ? WHERE session = ?",
                (owner, now + int(lease_s * 1000), rows[-1][1], session),
            )
        else:
            db.execute("DELETE FROM deliveries WHERE session = ?", (session,))
    return claimed


def is_holder(db: Database, owner: str, session: str) -> bool:
    """Whether this owner was the last to lease the session."""
    query = "SELECT 1 FROM deliveries WHERE session = ? AND owner = ?"
    return db.execute(query, (session, owner)).fetchone() is not None


def release(db: Database, session: str, due_ms: int) -> None:
    """Give a session back, or forget it when nothing of it waits."""
    if db.execute("SELECT 1 FROM messages WHERE session = ? LIMIT 1", (session,)).fetchone():
        db.execute(
            "UPDATE deliveries SET owner = '', due_ms = ? WHERE session = ?", (due_ms, session)
        )
    else:
        db.execute("DELETE FROM deliveries WHERE session = ?", (session,))


def settle(db: Database, session: str) -> None:
    """Give a session back once all messages of its lease are settled."""
    query = (
        "SELECT 1 FROM messages m JOIN deliveries d ON d.session = m.session"
        " WHERE d.session = ? AND m.number <= d.upto LIMIT 1"
    )
    if not db.execute(query, (session,)).fetchone():
        release(db, session, now_ms())


def remove(db: Database, numbers: Iterable[int]) -> None:
    gone = db.executemany(
        "DELETE FROM messages WHERE number = ?", [(number,) for number in numbers]
    ).rowcount
    db.execute("UPDATE counts SET waiting = waiting - ?", (max(gone, 0),))


def ack(db: Database, owner: str, rows: Sequence[LocalRow]) -> None:
    held = {session for session in {row.session for row in rows} if is_holder(db, owner, session)}
    remove(db, [row.number for row in rows if row.session in held])
    for session in held:
        settle(db, session)


def retry(db: Database, owner: str, row: LocalRow, delay_s: float) -> None:
    if is_holder(db, owner, row.session):
        db.execute("UPDATE messages SET attempt = attempt + 1 WHERE number = ?", (row.number,))
        release(db, row.session, now_ms() + int(delay_s * 1000))


def bury(db: Database, owner: str, row: LocalRow, reason: str) -> None:
    if is_holder(db, owner, row.session):
        kill(db, [row.number], reason)
        settle(db, row.session)


def kill(db: Database, numbers: Sequence[int], reason: str) -> None:
    """Move messages to the dead letters."""
    db.executemany(
        "INSERT INTO dead SELECT number, session, offset, epoch, attempt, enqueued_ms, body, ?, ?"
        " FROM messages WHERE number = ?",
        [(reason, now_ms(), number) for number in numbers],
    )
    remove(db, numbers)


def shed(db: Database, keep: int) -> int:
    over = min(max(size(db) - keep, 0), MAX_SHED)
    rows = db.execute("SELECT number FROM messages ORDER BY number LIMIT ?", (over,)).fetchall()
    kill(db, [number for (number,) in rows], "overflow")
    return len(rows)


def size(db: Database) -> int:
    return int(db.execute("SELECT waiting FROM counts").fetchone()[0])


def oldest_ms(db: Database) -> int | None:
    row = db.execute("SELECT enqueued_ms FROM messages ORDER BY number LIMIT 1").fetchone()
    return None if row is None else int(row[0])


def any_later(db: Database, ahead_s: float) -> bool:
    query = "SELECT 1 FROM deliveries WHERE due_ms > ? LIMIT 1"
    return db.execute(query, (now_ms() + int(ahead_s * 1000),)).fetchone() is not None


def hasten(db: Database, ahead_s: float) -> None:
    now = now_ms()
    db.execute(
        "UPDATE deliveries SET due_ms = ? WHERE due_ms > ?", (now, now + int(ahead_s * 1000))
    )


def forget_letters(db: Database, kept_s: float) -> None:
    """Dead letters that were kept long enough."""
    db.execute("DELETE FROM dead WHERE died_ms < ?", (now_ms() - int(kept_s * 1000),))


def dead_letters(db: Database, limit: int) -> list[DeadLetter]:
    rows = db.execute(
        f"SELECT {ROW}, reason, died_ms FROM dead ORDER BY died_ms, number LIMIT ?", (limit,)
    )
    return [DeadLetter(LocalRow(*row[:7]), row[7], row[8]) for row in rows]


def redrive(db: Database, letters: Sequence[DeadLetter]) -> int:
    """Append letters that are there, in the order given."""
    now, count = now_ms(), 0
    for letter in letters:
        number, session = letter.row.number, letter.row.session
        found = db.execute(
            "INSERT INTO messages SELECT NULL, session, offset, epoch, 0, ?, body FROM dead"
            " WHERE number = ?",
            (now, number),
        ).rowcount
        if found:
            db.execute("DELETE FROM dead WHERE number = ?", (number,))
            expect(db, session, now)
            count += 1
    db.execute("UPDATE counts SET waiting = waiting + ?", (count,))
    return count
