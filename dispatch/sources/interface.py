"""What a consumer's source does beside what an outbox does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from dispatch.outbox import Outbox, Row, RowT


class Letter(Protocol):
    """A message that was given up: why, and when (ms since 1970)."""

    @property
    def row(self) -> Row: ...
    @property
    def reason(self) -> str: ...
    @property
    def died_ms(self) -> int: ...


class Source(Outbox[RowT], Protocol[RowT]):
    """A queue; ``LocalQueue`` is one. Leaving it gives back what was not settled."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...

    async def dead_letters(self, limit: int = 100) -> Sequence[Letter]:
        """What was given up and is still kept, oldest first."""

    async def redrive(self, letters: Sequence[Any]) -> int:
        """Put back dead letters that ``dead_letters`` gave; how many were still there."""
