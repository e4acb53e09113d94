"""Whom a connection knows beside its peer: its keeper, and the receiver after its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from edge.transport.interface import Close, Limits
from edge.transport.rounds import Rounds
from edge.transport.settings import LaneSettings

if TYPE_CHECKING:
    from edge.transport.connection import Connection


class Owner(Protocol):
    """Who keeps a connection's deadlines and counts."""

    loop: asyncio.AbstractEventLoop
    settings: LaneSettings
    rounds: Rounds

    def settings_of(self, limits: Limits) -> LaneSettings:
        """The settings as a route with such limits wants them."""
        ...

    @property
    def turns_due(self) -> bool:
        """Whether connections wait for their turn."""
        ...

    def queue_turn(self, connection: Connection) -> None:
        """Call ``take_turn`` in a later turn of the event loop, after those that waited before."""
        ...

    def forget(self, connection: Connection) -> None:
        """The receiver has been told that the connection is over."""
        ...

    def count_slow(self) -> None:
        """A peer is being dropped for reading too slowly."""
        ...

    def count_silent(self) -> None:
        """A peer is being dropped for not answering a ping."""
        ...

    def count_fault(self, code: int) -> None:
        """A peer broke the protocol (1002, 1007, 1009) or the receiver crashed (1011)."""
        ...


class _Nobody:
    """Receiver of a connection that is over: nothing may keep the real one alive."""

    def opened(self, socket: object) -> None: ...

    def message(self, data: bytes, is_text: bool) -> None: ...

    def closed(self, close: Close) -> None: ...


NOBODY = _Nobody()
