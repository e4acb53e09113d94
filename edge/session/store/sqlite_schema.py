"""The tables of the embedded engine, and whether what they hold can be trusted."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from edge.session.store.interface import Durability, new_epoch
from edge.session.store.sqlite_outbox import forget_times

VERSION = 1

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
    tail INTEGER NOT NULL, head INTEGER NOT NULL, fence INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, deleted_ms INTEGER NOT NULL);
CREATE INDEX sessions_by_change ON sessions (deleted_ms, changed_ms);
CREATE TABLE tracks (
    session INTEGER NOT NULL, track TEXT NOT NULL, fence INTEGER NOT NULL,
    batch TEXT NOT NULL, batch_last INTEGER NOT NULL,
    PRIMARY KEY (session, track)) WITHOUT ROWID;
CREATE TABLE entries (
    session INTEGER NOT NULL, offset INTEGER NOT NULL, kind TEXT NOT NULL, track TEXT NOT NULL,
    fence INTEGER NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (session, offset)) WITHOUT ROWID;
CREATE TABLE records (
    scope TEXT NOT NULL, family TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (scope, family, key)) WITHOUT ROWID;
CREATE INDEX records_by_expiry ON records (expires_ms) WHERE expires_ms > 0;
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, offset INTEGER NOT NULL,
    epoch TEXT NOT NULL, attempt INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX outbox_by_session ON outbox (session, number);
CREATE TABLE deliveries (
    session INTEGER PRIMARY KEY, owner TEXT NOT NULL, due_ms INTEGER NOT NULL,
    upto INTEGER NOT NULL);
CREATE INDEX deliveries_by_due ON deliveries (due_ms);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY, session INTEGER NOT NULL, offset INTEGER NOT NULL,
    epoch TEXT NOT NULL, attempt INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    body BLOB NOT NULL, reason TEXT NOT NULL, died_ms INTEGER NOT NULL);
CREATE INDEX dead_by_session ON dead (session);
"""


def connect(path: Path, durability: Durability) -> sqlite3.Connection:
    """A connection as every thread of the engine uses it; transactions are begun by hand."""
    connection = sqlite3.connect(
        path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    connection.execute("PRAGMA journal_size_limit=67108864")
    # What is appended to are the last pages of few sessions; more would fill up with old ones.
    connection.execute("PRAGMA cache_size=-2000")
    return connection


def prepare(
    connection: sqlite3.Connection, seal: Path, durability: Durability, *, is_first: bool
) -> int:
    """Create the tables, or judge those that are there; how many sessions got a new epoch.

    The file ``seal`` beside the database holds what the database held when it was last opened by
    the first of its processes: another one means that one of the two was replaced. Call it with
    the writers' lock held, ``is_first`` when no other process has the database open.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"schema version {version}, expected {VERSION}")
    if version == 0:
        connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version={VERSION};COMMIT;")
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    boot = boot_id()
    stopped_badly = meta.get("boot", boot) not in ("", boot) and meta["durability"] == "normal"
    found = seal.read_text(encoding="ascii") if seal.exists() else ""
    seals = {meta.get("seal", found), meta.get("last_seal") or None}
    replaced = is_first and found not in seals
    weakest = "normal" if "normal" in (durability, meta.get("durability")) else "full"
    new = {"boot": boot, "durability": durability if is_first else weakest}
    if is_first:
        new |= {"seal": secrets.token_hex(16), "last_seal": meta.get("seal", "")}
    distrusted = 0
    connection.execute("BEGIN IMMEDIATE")
    if stopped_badly or replaced:
        distrusted = begin_new_epochs(connection)
    connection.executemany("REPLACE INTO meta VALUES (?, ?)", new.items())
    if is_first:
        forget_times(connection)
    connection.execute("COMMIT")
    if is_first:
        seal.write_text(new["seal"], encoding="ascii")
    return distrusted


def begin_new_epochs(connection: sqlite3.Connection) -> int:
    """No session's history can be trusted: say so in each."""
    rows = connection.execute("SELECT id FROM sessions WHERE deleted_ms = 0").fetchall()
    connection.executemany(
        "UPDATE sessions SET epoch = ? WHERE id = ?", ((new_epoch(), row[0]) for row in rows)
    )
    return len(rows)


def mark_clean(connection: sqlite3.Connection) -> None:
    """All is on the disk: the next start need not ask whether the machine went down."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("UPDATE meta SET value = '' WHERE key = 'boot'")


def boot_id() -> str:
    """This run of the machine's kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
