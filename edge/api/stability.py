"""``GET /sessions/metrics``: how stable connections are, over all workers and nodes."""

from __future__ import annotations

from typing import Protocol

from edge.api.http import Call, NoQuery
from edge.session.stability import Report


class Figures(Protocol):
    """Who knows: ``edge.session.stability_share.StabilityShare``."""

    async def report(self) -> Report: ...


class StabilityEndpoint:
    """Answers ``/sessions/metrics`` for one worker."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    async def get(self, call: Call[NoQuery, None]) -> Report:
        """The figures of the last 5 minutes, hour and day, each with a verdict."""
        return await self._figures.report()
