"""Where sessions are kept, and how safely."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.option import option
from edge.session.store.interface import Durability


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The session store of all workers, and of all nodes that are one gateway."""

    store: Annotated[
        str,
        option("Session store: a path (SQLite) or a redis:// URL; empty is in the data folder"),
    ] = ""
    """Nodes that share one Redis or Valkey are one gateway."""
    durability: Annotated[
        Durability,
        option("normal survives the death of any process, full also a loss of power"),
    ] = "normal"
    log_queue_entries: Annotated[
        int, option("Log entries of a worker that may wait for the store", ge=100)
    ] = 20_000
    """Further ones are dropped, counted, and noted in the log when the store is back."""
