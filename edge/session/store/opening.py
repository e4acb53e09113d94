"""Which engine a location means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from edge.errors import MissingDependency, SettingError
from edge.session.store.interface import Durability, SessionStore
from edge.session.store.sqlite import SqliteStore

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)


def open_store(location: str, durability: Durability = "normal") -> SessionStore:
    """The store at a path (SQLite) or URL (Redis, Valkey); it still has to be opened.

    URLs: ``redis://host:port/db``, ``redis+sentinel://host:port,host:port/service``,
    ``redis+cluster://host:port,host:port``; ``rediss`` for TLS. Raises ``SettingError`` for others
    and ``MissingDependency`` when the client for them is not installed.
    """
    scheme = urlsplit(location).scheme
    if not scheme:
        return SqliteStore(Path(location), durability)
    if scheme not in REDIS_SCHEMES:
        raise SettingError("EDGESCRIBE_STORE", f"{scheme}://…", "a path or a redis:// URL")
    try:
        from edge.session.store.redis import RedisStore
    except ImportError as error:
        raise MissingDependency("redis", "redis") from error
    return RedisStore(location, durability)
