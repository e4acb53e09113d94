"""The outbox in SQLite: functions of a connection, called in the writer's thread.

Leases and delays are told by the machine's monotonic clock, which all processes share: nobody can
set it. It begins anew when the machine starts; ``forget_times`` is for whoever opens the database
first.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from edge.session.store.interface import MAX_SHED, DeadLetter, OutboxRow, now_ms

ROW = "o.number, o.offset, o.epoch, o.attempt, o.enqueued_ms, o.body"
Named = tuple[str, int, int, str, int, int, bytes]


def clock_ms() -> int:
    """What ``due_ms`` is measured by."""
    return time.monotonic_ns() // 1_000_000


def forget_times(db: sqlite3.Connection) -> None:
    """Nobody delivers anything any more, all that waits is due."""
    db.execute("UPDATE deliveries SET owner = '', due_ms = 0")


def expect(db: sqlite3.Connection, session: int) -> None:
    """Something waits in this session."""
    db.execute("INSERT OR IGNORE INTO deliveries VALUES (?, '', ?, 0)", (session, clock_ms()))


def any_due(db: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM deliveries WHERE due_ms <= ? LIMIT 1"
    return db.execute(query, (clock_ms(),)).fetchone() is not None


def claim(db: sqlite3.Connection, owner: str, limit: int, lease_s: float) -> list[OutboxRow]:
    now, claimed = clock_ms(), list[Named]()
    due = db.execute(
        "SELECT d.session, s.name FROM deliveries d JOIN sessions s ON s.id = d.session"
        " WHERE d.due_ms <= ? ORDER BY d.due_ms LIMIT ?",
        (now, limit),
    ).fetchall()
    for session, name in due:
        if len(claimed) >= limit:
            break
        rows = db.execute(
            f"SELECT {ROW} FROM outbox o WHERE session = ? ORDER BY number LIMIT ?",
            (session, limit - len(claimed)),
        ).fetchall()
        claimed += [(name, *row) for row in rows]
        if rows:
            db.execute(
                "UPDATE deliveries SET owner = ?, due_ms = ?, upto = ? WHERE session = ?",
                (owner, now + int(lease_s * 1000), rows[-1][0], session),
            )
        else:
            db.execute("DELETE FROM deliveries WHERE session = ?", (session,))
    return [OutboxRow(*row) for row in claimed]


def is_holder(db: sqlite3.Connection, owner: str, row: OutboxRow) -> bool:
    """Whether this owner was the last to lease the row's session."""
    query = (
        "SELECT 1 FROM outbox o JOIN deliveries d ON d.session = o.session"
        " WHERE o.number = ? AND d.owner = ?"
    )
    return db.execute(query, (row.number, owner)).fetchone() is not None


def release(db: sqlite3.Connection, session: int, due_ms: int) -> None:
    """Give a session back, or forget it when nothing of it waits."""
    if db.execute("SELECT 1 FROM outbox WHERE session = ? LIMIT 1", (session,)).fetchone():
        db.execute(
            "UPDATE deliveries SET owner = '', due_ms = ? WHERE session = ?", (due_ms, session)
        )
    else:
        db.execute("DELETE FROM deliveries WHERE session = ?", (session,))


def session_of(db: sqlite3.Connection, row: OutboxRow) -> int:
    found = db.execute("SELECT session FROM outbox WHERE number = ?", (row.number,)).fetchone()
    return int(found[0])


def ack(db: sqlite3.Connection, owner: str, rows: Sequence[OutboxRow]) -> None:
    held = [row for row in rows if is_holder(db, owner, row)]
    touched = {session_of(db, row) for row in held}
    db.executemany("DELETE FROM outbox WHERE number = ?", [(row.number,) for row in held])
    for session in touched:
        settle(db, session)


def settle(db: sqlite3.Connection, session: int) -> None:
    """Give a session back once all rows of its lease are settled."""
    query = (
        "SELECT 1 FROM outbox o JOIN deliveries d ON d.session = o.session"
        " WHERE d.session = ? AND o.number <= d.upto LIMIT 1"
    )
    if not db.execute(query, (session,)).fetchone():
        release(db, session, clock_ms())


def retry(db: sqlite3.Connection, owner: str, row: OutboxRow, delay_s: float) -> None:
    if is_holder(db, owner, row):
        db.execute("UPDATE outbox SET attempt = attempt + 1 WHERE number = ?", (row.number,))
        release(db, session_of(db, row), clock_ms() + int(delay_s * 1000))


def kill(db: sqlite3.Connection, number: int, reason: str) -> None:
    """Move a row to the dead letters."""
    db.execute(
        f"INSERT INTO dead SELECT o.number, o.session, {ROW.replace('o.number, ', '')}, ?, ?"
        " FROM outbox o WHERE number = ?",
        (reason, now_ms(), number),
    )
    db.execute("DELETE FROM outbox WHERE number = ?", (number,))


def bury(db: sqlite3.Connection, owner: str, row: OutboxRow, reason: str) -> None:
    if is_holder(db, owner, row):
        session = session_of(db, row)
        kill(db, row.number, reason)
        settle(db, session)


def shed(db: sqlite3.Connection, keep: int) -> int:
    over = min(max(size(db) - keep, 0), MAX_SHED)
    rows = db.execute("SELECT number FROM outbox ORDER BY number LIMIT ?", (over,)).fetchall()
    for (number,) in rows:
        kill(db, number, "overflow")
    return len(rows)


def size(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])


def oldest_ms(db: sqlite3.Connection) -> int | None:
    row = db.execute("SELECT enqueued_ms FROM outbox ORDER BY number LIMIT 1").fetchone()
    return None if row is None else int(row[0])


def any_later(db: sqlite3.Connection, ahead_s: float) -> bool:
    query = "SELECT 1 FROM deliveries WHERE due_ms > ? LIMIT 1"
    return db.execute(query, (clock_ms() + int(ahead_s * 1000),)).fetchone() is not None


def hasten(db: sqlite3.Connection, ahead_s: float) -> None:
    due_ms = clock_ms() + int(ahead_s * 1000)
    db.execute("UPDATE deliveries SET due_ms = ? WHERE due_ms > ?", (due_ms, due_ms))


def dead_letters(db: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    rows = db.execute(
        f"SELECT s.name, {ROW}, o.reason, o.died_ms FROM dead o JOIN sessions s"
        " ON s.id = o.session ORDER BY o.died_ms, o.number LIMIT ?",
        (limit,),
    )
    return [DeadLetter(OutboxRow(*row[:7]), row[7], row[8]) for row in rows]


def redrive(db: sqlite3.Connection, letters: Sequence[DeadLetter]) -> int:
    count = 0
    for letter in letters:
        number = letter.row.number
        session = db.execute("SELECT session FROM dead WHERE number = ?", (number,)).fetchone()
        if session is None:
            continue
        db.execute(
            "INSERT INTO outbox SELECT NULL, session, offset, epoch, 0, ?, body FROM dead"
            " WHERE number = ?",
            (now_ms(), number),
        )
        db.execute("DELETE FROM dead WHERE number = ?", (number,))
        db.execute(
            "INSERT OR IGNORE INTO deliveries VALUES (?, '', ?, 0)", (session[0], clock_ms())
        )
        count += 1
    return count
