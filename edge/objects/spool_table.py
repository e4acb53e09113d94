"""What a spool holds: one operation for each key, the newest, in a SQLite database.

Comes in: connections of the spool's threads, of all workers of a node. Goes out: rows. Every
function is one step of a transaction; an operation that takes the place of another gets a new
number, so that whoever carried the old one out leaves the new one alone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Literal

import msgspec

OVERHEAD = 400
"""Bytes that an operation takes beside its body, about."""
_AT_ONCE_BYTES = 8 << 20
"""Bodies that are carried out together."""
_BUSY_S = 5.0
_KEPT_FREE_BYTES = 16 << 20
"""On a disk that is full nothing could be forgotten either: that takes room in the journal."""

Kind = Literal["put", "new", "remove"]
Verdict = Literal["kept", "exists", "full", "no room"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operation (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    due_ms INTEGER NOT NULL DEFAULT 0,
    since_ms INTEGER NOT NULL DEFAULT 0,
    content_type TEXT NOT NULL DEFAULT '',
    metadata BLOB NOT NULL DEFAULT '{}',
    body BLOB NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS meter (bytes INTEGER NOT NULL, progress INTEGER NOT NULL);
INSERT INTO meter SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM meter);
"""
_SINCE = "ALTER TABLE operation ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0"
_METADATA = msgspec.json.Decoder(dict[str, str])
_encode = msgspec.json.Encoder().encode


class Filled(msgspec.Struct, frozen=True):
    """What waits, of all workers of a node."""

    objects: int
    bytes: int
    oldest_age_s: float
    """How long the oldest waits; 0 when nothing does."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done to one key; ``new`` puts a body where there is none."""

    key: str
    kind: Kind
    number: int = 0
    content_type: str = ""
    metadata: dict[str, str] = {}
    body: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that count against the spool's bound."""
        return len(self.body) + OVERHEAD


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits survive a loss of power."""
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA journal_size_limit=16777216")
    return db


def prepare(path: Path) -> None:
    """Make the tables that are not there."""
    db = connect(path)
    try:
        db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        _add_since(db)
    finally:
        db.close()


def _add_since(db: sqlite3.Connection) -> None:
    """Give a spool that an older version left the column it lacks."""
    db.execute("BEGIN IMMEDIATE")
    names = {row[1] for row in db.execute("PRAGMA table_info(operation)")}
    if "since_ms" not in names:
        db.execute(_SINCE)
        db.execute("UPDATE operation SET since_ms = ?", (_now_ms(),))
    db.execute("COMMIT")


def append(db: sqlite3.Connection, operation: Operation, most_bytes: int, folder: Path) -> Verdict:
    """Keep a body, in the place of what its key had; ``folder`` is on the database's disk."""
    held = db.execute("SELECT kind, size FROM operation WHERE key = ?", (operation.key,)).fetchone()
    kind = operation.kind
    if held and kind == "new":
        if held[0] != "remove":
            return "exists"
        kind = "put"
    (filled,) = db.execute("SELECT bytes FROM meter").fetchone()
    if filled - (held[1] if held else 0) + operation.size > most_bytes:
        return "full"
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < _KEPT_FREE_BYTES + operation.size:
        return "no room"
    _replace(db, held[1] if held else 0, kind, operation)
    return "kept"


def withdraw(db: sqlite3.Connection, keys: list[str]) -> list[str]:
    """Remove those of the keys that wait; which they are.

    Their bodies may be on their way just now: the removals follow them.
    """
    found = []
    for key in keys:
        held = db.execute("SELECT kind, size FROM operation WHERE key = ?", (key,)).fetchone()
        if held:
            found.append(key)
            if held[0] != "remove":
                _replace(db, held[1], "remove", Operation(key=key, kind="remove"))
    return found


def _replace(db: sqlite3.Connection, freed: int, kind: Kind, operation: Operation) -> None:
    db.execute(
        "INSERT OR REPLACE INTO operation"
        " (key, kind, size, since_ms, content_type, metadata, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            operation.key,
            kind,
            operation.size,
            _now_ms(),
            operation.content_type,
            _encode(operation.metadata),
            operation.body,
        ),
    )
    db.execute("UPDATE meter SET bytes = bytes + ?", (operation.size - freed,))


def held(db: sqlite3.Connection, key: str) -> tuple[Kind, bytes] | None:
    """What waits for a key."""
    found: tuple[Kind, bytes] | None = db.execute(
        "SELECT kind, body FROM operation WHERE key = ?", (key,)
    ).fetchone()
    return found


def waits(db: sqlite3.Connection, key: str) -> bool:
    """Whether anything waits for a key."""
    return db.execute("SELECT 1 FROM operation WHERE key = ?", (key,)).fetchone() is not None


def keys(db: sqlite3.Connection, prefix: str, after: str) -> list[tuple[str, Kind]]:
    """The keys that wait, and what for, in the order of their bytes."""
    return db.execute(
        "SELECT key, kind FROM operation WHERE key >= ? AND key < ? AND key > ? ORDER BY key",
        (prefix, f"{prefix}\x7f", after),
    ).fetchall()


def next_operations(db: sqlite3.Connection, most: int) -> list[Operation]:
    """The oldest operations that are due; at least one, if there is any."""
    sizes = db.execute(
        "SELECT number, size FROM operation WHERE due_ms <= ? ORDER BY number LIMIT ?",
        (_now_ms(), most),
    ).fetchall()
    taken: list[Operation] = []
    total = 0
    for number, size in sizes:
        total += size
        if taken and total > _AT_ONCE_BYTES:
            break
        row = db.execute(
            "SELECT key, kind, number, content_type, metadata, body FROM operation"
            " WHERE number = ?",
            (number,),
        ).fetchone()
        if row:
            key, kind, number, content_type, metadata, body = row
            taken.append(
                Operation(
                    key=key,
                    kind=kind,
                    number=number,
                    content_type=content_type,
                    metadata=_METADATA.decode(metadata),
                    body=body,
                )
            )
    return taken


def settle(db: sqlite3.Connection, done: list[int], refused: list[int], wait_ms: int) -> None:
    """Forget what was carried out, and try what was refused again after a while."""
    for number in done:
        for (size,) in db.execute("SELECT size FROM operation WHERE number = ?", (number,)):
            db.execute("UPDATE meter SET bytes = bytes - ?", (size,))
        db.execute("DELETE FROM operation WHERE number = ?", (number,))
    for number in refused:
        db.execute(
            "UPDATE operation SET due_ms = ? WHERE number = ?", (_now_ms() + wait_ms, number)
        )
    if done:
        db.execute("UPDATE meter SET progress = progress + 1")


def progress(db: sqlite3.Connection) -> tuple[int, bool]:
    """A number that grows as operations are carried out, and whether any is due."""
    (number,) = db.execute("SELECT progress FROM meter").fetchone()
    due = db.execute("SELECT 1 FROM operation WHERE due_ms <= ? LIMIT 1", (_now_ms(),)).fetchone()
    return number, due is not None


def filled(db: sqlite3.Connection) -> Filled:
    """What waits; the oldest is the one with the lowest number."""
    (size,) = db.execute("SELECT bytes FROM meter").fetchone()
    (count,) = db.execute("SELECT count(*) FROM operation").fetchone()
    oldest = db.execute("SELECT since_ms FROM operation ORDER BY number LIMIT 1").fetchone()
    age_ms = max(0, _now_ms() - oldest[0]) if oldest else 0
    return Filled(count, size, age_ms / 1000)


def shrink(path: Path) -> None:
    """Give the disk space of what was carried out back."""
    db = connect(path)
    try:
        # As a script: a single statement without columns would stop after the first page.
        db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
    finally:
        db.close()


def _now_ms() -> int:
    return int(time.time() * 1000)
