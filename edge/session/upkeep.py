"""What a worker does for all sessions beside carrying its own: figures, retention, chores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge.session.retention import Gone, Retention, RetentionSettings
from edge.session.stability import Stability
from edge.session.stability_share import StabilityShare
from edge.session.store.interface import SessionStore


class Chore(Protocol):
    """Work of another room that is done now and then."""

    def start(self) -> None:
        """Begin; nothing waits for the store."""
        ...

    async def stop(self) -> None:
        """End; a few seconds at most."""
        ...


class Upkeep:
    """Owns the tasks; the store is open from before ``start`` until after ``stop``."""

    def __init__(
        self,
        settings: RetentionSettings,
        store: SessionStore,
        stability: Stability,
        *,
        gone: Gone | None = None,
        chores: Sequence[Chore] = (),
    ) -> None:
        """``gone`` is told of sessions that were deleted because nobody changed them."""
        self.figures = StabilityShare(stability, store)
        self._retention = Retention(settings.session_retention_s, store, gone)
        self._chores = chores

    def start(self) -> None:
        """Begin; nothing waits for the store."""
        self.figures.start()
        self._retention.start()
        for chore in self._chores:
            chore.start()

    async def stop(self) -> None:
        """End, after the last client connection; takes a few seconds at most."""
        for chore in self._chores:
            await chore.stop()
        await self._retention.stop()
        await self.figures.stop()
