"""What every kind of service has: limits, tags, a start, a stop and one way to be asked."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Annotated, Any

import msgspec

from router.front import RoutedHttp, RoutedRequest

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one service may take; None is no limit."""

    wall_ms: AtLeastOne | None = None
    """From the dispatch of a request to the end of its response; sockets are not bounded."""
    max_body: AtLeastOne | None = None
    """Bytes of a request's body."""
    max_concurrency: AtLeastOne | None = None
    """Requests and sockets at once, in each worker."""


class Service(ABC):
    """One version of a service; ``Namespace`` starts, swaps and retires it."""

    def __init__(self, limits: Limits | None = None, tags: tuple[str, ...] = ()) -> None:
        self.limits = limits or Limits()
        self.is_limited = self.limits != Limits()
        self.tags = tags
        self.in_flight = 0
        self._idle: asyncio.Event | None = None
        """Asked for while something is in flight."""

    async def start(self) -> None:  # noqa: B027
        """Make ready for the first request. Raises ``ServiceFailed``."""

    async def stop(self) -> None:  # noqa: B027
        """Let go of everything; nothing is in flight any more, or no longer waited for."""

    @abstractmethod
    def handle(self, request: RoutedRequest) -> Awaitable[None]:
        """Answer a request. Cancelled when the client leaves.

        An exception tells that the service failed; whether a response had begun is known to the
        request's stream.
        """

    def check_end(self, exchange: RoutedHttp) -> None:  # noqa: B027
        """Raise ``ServiceFailed`` where a request that is over has no whole response.

        Asked only where none was sent to its end.
        """

    @property
    def binding(self) -> Any:
        """The object whose methods other services may call; None when there is none."""
        return None

    def enter(self) -> None:
        """One more request is in flight."""
        self.in_flight += 1

    def leave(self) -> None:
        """One request less is in flight."""
        self.in_flight -= 1
        if not self.in_flight and self._idle is not None:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until nothing is in flight."""
        while self.in_flight:
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            await self._idle.wait()
