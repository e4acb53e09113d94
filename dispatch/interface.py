"""What every transport does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from dispatch.messages import Envelope


class Transport(ABC):
    """Carries messages to a queue or a service; safe to call for several sessions at a time."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Prepare; nobody is spoken to yet, so that a target may come later."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        return None

    @abstractmethod
    async def send(self, envelopes: Sequence[Envelope]) -> int:
        """Deliver messages of one session in order; how many, from the first on, were taken.

        Fewer than all: the deadline did not allow more. Raises ``Unreachable`` or ``Refused`` for
        the first message only if none was taken; every call is bounded by a deadline.
        """
