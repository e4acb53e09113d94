"""Sessions, logs and records in SQLite: functions of a connection, called in a store thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from edge.errors import Conflict, HistoryLost, SessionDeleted, StaleFence
from edge.session.store.interface import (
    DEAD_LETTERS_KEPT_S,
    TOMBSTONE_S,
    Draft,
    Entry,
    Grant,
    Head,
    Page,
    Record,
    Resumed,
    SessionDetail,
    SessionInfo,
    new_epoch,
    now_ms,
)
from edge.session.store.sqlite_outbox import expect

MAX_RECORDS = 10_000
SWEPT_RECORDS = 5


class SessionRow(msgspec.Struct):
    """A session as the database has it; ``deleted_ms`` 0: it lives."""

    id: int
    epoch: str
    tail: int
    head: int
    fence: int
    deleted_ms: int

    @property
    def place(self) -> Head:
        return Head(self.epoch, self.tail, self.head)


class Standing(msgspec.Struct, frozen=True):
    """Tells whether a session was changed: every change of any of its parts changes this."""

    epoch: str
    head: int
    changed_ms: int
    deleted_ms: int


def standings(names: Sequence[str], db: sqlite3.Connection) -> dict[str, Standing]:
    """Where those of the sessions stand that exist, all in one go."""
    query = "SELECT epoch, head, changed_ms, deleted_ms FROM sessions WHERE name = ?"
    rows = ((name, db.execute(query, (name,)).fetchone()) for name in names)
    return {name: Standing(*row) for name, row in rows if row is not None}


def find(db: sqlite3.Connection, session: str) -> SessionRow | None:
    """The session, be it deleted or not."""
    row = db.execute(
        "SELECT id, epoch, tail, head, fence, deleted_ms FROM sessions WHERE name = ?", (session,)
    ).fetchone()
    return None if row is None else SessionRow(*row)


def live(db: sqlite3.Connection, session: str) -> SessionRow | None:
    """The session, unless it was deleted."""
    row = find(db, session)
    return None if row is None or row.deleted_ms else row


def touch(db: sqlite3.Connection, session: str) -> SessionRow:
    """The session, made when there is none; ``SessionDeleted``."""
    row = find(db, session)
    if row is None:
        now = now_ms()
        row = SessionRow(0, new_epoch(), 1, 0, 0, 0)
        cursor = db.execute(
            "INSERT INTO sessions VALUES (NULL, ?, ?, 1, 0, 0, ?, ?, 0)",
            (session, row.epoch, now, now),
        )
        row.id = cursor.lastrowid or 0
    elif row.deleted_ms:
        raise SessionDeleted(session)
    return row


def open_track(db: sqlite3.Connection, session: str, track: str) -> Grant:
    row = touch(db, session)
    fence = max(row.fence + 1, now_ms() * 1000)
    db.execute(
        "UPDATE sessions SET fence = ?, changed_ms = ? WHERE id = ?", (fence, now_ms(), row.id)
    )
    db.execute("REPLACE INTO tracks VALUES (?, ?, ?, '', 0)", (row.id, track, fence))
    return Grant(session, track, fence, row.epoch, row.head)


def renew(db: sqlite3.Connection, row: SessionRow) -> SessionRow:
    """Begin a new epoch: what the session's log was is not known."""
    row.epoch = new_epoch()
    db.execute("UPDATE sessions SET epoch = ? WHERE id = ?", (row.epoch, row.id))
    return row


def number_of(batch: str) -> int:
    """Which of its grant's appends a batch is."""
    return int(batch.partition(":")[0])


def append(
    db: sqlite3.Connection,
    grant: Grant,
    batch: str,
    drafts: Sequence[Draft],
    outbox: Sequence[tuple[int, bytes]],
) -> int | HistoryLost:
    """Append in one step. A loss of history is an answer, not an error, so that it is committed."""
    row = touch(db, grant.session) if not grant.track else find(db, grant.session)
    if row is None:
        return HistoryLost(grant.session, touch(db, grant.session).epoch)
    if row.deleted_ms:
        raise SessionDeleted(grant.session)
    if grant.track:
        current = db.execute(
            "SELECT fence, batch, batch_last FROM tracks WHERE session = ? AND track = ?",
            (row.id, grant.track),
        ).fetchone() or (0, "", 0)
        if grant.epoch != row.epoch:
            raise HistoryLost(grant.session, row.epoch)
        if grant.fence < current[0]:
            raise StaleFence(grant.session, grant.track, grant.fence, current[0])
        if grant.fence > current[0] or grant.acked > row.head:
            return HistoryLost(grant.session, renew(db, row).epoch)
        if current[1] == batch:
            return int(current[2])
        if current[1] and number_of(batch) < number_of(current[1]):
            # One that was given up, and done by another way since.
            raise StaleFence(grant.session, grant.track, grant.fence, current[0])
    now, first = now_ms(), row.head + 1
    last = row.head + len(drafts)
    db.executemany(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (row.id, first + index, draft.kind, grant.track, grant.fence, now, draft.body)
            for index, draft in enumerate(drafts)
        ],
    )
    db.execute("UPDATE sessions SET head = ?, changed_ms = ? WHERE id = ?", (last, now, row.id))
    if grant.track:
        db.execute(
            "UPDATE tracks SET batch = ?, batch_last = ? WHERE session = ? AND track = ?",
            (batch, last, row.id, grant.track),
        )
    if outbox:
        db.executemany(
            "INSERT INTO outbox VALUES (NULL, ?, ?, ?, 0, ?, ?)",
            [(row.id, first + index, row.epoch, now, body) for index, body in outbox],
        )
        expect(db, row.id)
    return last


def read(db: sqlite3.Connection, session: str, after: int, limit: int) -> Page | None:
    db.execute("BEGIN")
    try:
        row = live(db, session)
        if row is None:
            return None
        entries = []
        if row.head > after:
            entries = db.execute(
                "SELECT offset, kind, track, fence, at_ms, body FROM entries"
                " WHERE session = ? AND offset > ? ORDER BY offset LIMIT ?",
                (row.id, after, limit),
            ).fetchall()
        return Page(row.place, [Entry(*entry) for entry in entries])
    finally:
        db.execute("COMMIT")


def resume(db: sqlite3.Connection, session: str, epoch: str, offset: int) -> Resumed | None:
    row = live(db, session)
    if row is None:
        return None
    if row.epoch != epoch:
        return Resumed(row.place, False)
    if offset > row.head:
        return Resumed(renew(db, row).place, False)
    return Resumed(row.place, offset >= row.tail - 1)


def clear(db: sqlite3.Connection, session: str) -> Head:
    row = renew(db, touch(db, session))
    row.tail = row.head + 1
    db.execute("DELETE FROM entries WHERE session = ?", (row.id,))
    db.execute(
        "UPDATE sessions SET tail = ?, changed_ms = ? WHERE id = ?", (row.tail, now_ms(), row.id)
    )
    return row.place


def get(db: sqlite3.Connection, scope: str, family: str, key: str) -> Record | None:
    row = db.execute(
        "SELECT version, body FROM records WHERE scope = ? AND family = ? AND key = ?"
        " AND (expires_ms = 0 OR expires_ms > ?)",
        (scope, family, key, now_ms()),
    ).fetchone()
    return None if row is None else Record(key, *row)


def records(db: sqlite3.Connection, scope: str, family: str) -> list[Record]:
    rows = db.execute(
        "SELECT key, version, body FROM records WHERE scope = ? AND family = ?"
        " AND (expires_ms = 0 OR expires_ms > ?) ORDER BY key LIMIT ?",
        (scope, family, now_ms(), MAX_RECORDS),
    )
    return [Record(*row) for row in rows]


def require(db: sqlite3.Connection, scope: str, family: str, key: str, version: int) -> None:
    """The record has this version (0: there is none), or ``Conflict``."""
    found = get(db, scope, family, key)
    if (found.version if found else 0) != version:
        raise Conflict(key, found.version if found else 0, found.body if found else b"")


def put(
    db: sqlite3.Connection,
    scope: str,
    family: str,
    key: str,
    body: bytes,
    version: int,
    ttl_s: float,
) -> int:
    is_session = not scope.startswith("\x1f")
    if is_session and (found := find(db, scope)) and found.deleted_ms:
        raise SessionDeleted(scope)
    require(db, scope, family, key, version)
    now = now_ms()
    if is_session:
        row = touch(db, scope)
        db.execute("UPDATE sessions SET changed_ms = ? WHERE id = ?", (now, row.id))
    db.execute(
        "DELETE FROM records WHERE (scope, family, key) IN (SELECT scope, family, key"
        " FROM records WHERE expires_ms > 0 AND expires_ms <= ? LIMIT ?)",
        (now, SWEPT_RECORDS),
    )
    expires_ms = now + int(ttl_s * 1000) if ttl_s else 0
    db.execute(
        "REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)",
        (scope, family, key, version + 1, expires_ms, body),
    )
    return version + 1


def drop(db: sqlite3.Connection, scope: str, family: str, key: str, version: int) -> None:
    if get(db, scope, family, key) is None:
        return
    require(db, scope, family, key, version)
    db.execute(
        "DELETE FROM records WHERE scope = ? AND family = ? AND key = ?", (scope, family, key)
    )
    db.execute(
        "UPDATE sessions SET changed_ms = ? WHERE name = ? AND deleted_ms = 0", (now_ms(), scope)
    )


def sessions(db: sqlite3.Connection, after: str, limit: int) -> list[SessionInfo]:
    rows = db.execute(
        "SELECT name, created_ms, changed_ms, head FROM sessions"
        " WHERE name > ? AND deleted_ms = 0 ORDER BY name LIMIT ?",
        (after, limit),
    )
    return [SessionInfo(*row) for row in rows]


def detail(db: sqlite3.Connection, session: str) -> SessionDetail | None:
    row = db.execute(
        "SELECT id, name, created_ms, changed_ms, head, epoch, tail FROM sessions"
        " WHERE name = ? AND deleted_ms = 0",
        (session,),
    ).fetchone()
    if row is None:
        return None
    number, name, created_ms, changed_ms, head, epoch, tail = row
    names = db.execute("SELECT track FROM tracks WHERE session = ? ORDER BY track", (number,))
    return SessionDetail(
        SessionInfo(name, created_ms, changed_ms, head),
        Head(epoch, tail, head),
        tuple(track for (track,) in names),
    )


def delete(db: sqlite3.Connection, session: str) -> bool:
    row = live(db, session)
    if row is None:
        return False
    for table in ("entries", "tracks", "outbox", "deliveries", "dead"):
        db.execute(f"DELETE FROM {table} WHERE session = ?", (row.id,))
    db.execute("DELETE FROM records WHERE scope = ?", (session,))
    db.execute(
        "UPDATE sessions SET deleted_ms = ?, head = 0, tail = 1, epoch = '' WHERE id = ?",
        (now_ms(), row.id),
    )
    return True


def expire(db: sqlite3.Connection, unchanged_ms: int, limit: int) -> list[str]:
    now = now_ms()
    rows = db.execute(
        "SELECT name FROM sessions WHERE deleted_ms = 0 AND changed_ms <= ?"
        " AND id NOT IN (SELECT session FROM outbox) ORDER BY changed_ms LIMIT ?",
        (now - unchanged_ms, limit),
    ).fetchall()
    for (name,) in rows:
        delete(db, name)
    db.execute(
        "DELETE FROM sessions WHERE deleted_ms > 0 AND deleted_ms <= ?",
        (now - int(TOMBSTONE_S * 1000),),
    )
    db.execute("DELETE FROM records WHERE expires_ms > 0 AND expires_ms <= ?", (now,))
    db.execute("DELETE FROM dead WHERE died_ms <= ?", (now - int(DEAD_LETTERS_KEPT_S * 1000),))
    return [name for (name,) in rows]
