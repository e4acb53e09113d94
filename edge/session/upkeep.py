"""What a worker does for all sessions beside carrying its own: shared figures, and retention."""

from __future__ import annotations

from edge.session.retention import Retention, RetentionSettings
from edge.session.stability import Stability
from edge.session.stability_share import StabilityShare
from edge.session.store.interface import SessionStore


class Upkeep:
    """Owns the tasks; the store is open from before ``start`` until after ``stop``."""

    def __init__(
        self, settings: RetentionSettings, store: SessionStore, stability: Stability
    ) -> None:
        self.figures = StabilityShare(stability, store)
        self._retention = Retention(settings.session_retention_s, store)

    def start(self) -> None:
        """Begin; nothing waits for the store."""
        self.figures.start()
        self._retention.start()

    async def stop(self) -> None:
        """End, after the last client connection; takes a few seconds at most."""
        await self._retention.stop()
        await self.figures.stop()
