"""The half of a connection that reads: whether it does, on every arrival or in rounds."""

from __future__ import annotations

import asyncio

from edge.transport.interface import Limits
from edge.transport.owner import Owner
from edge.transport.rounds import Arrivals, Member
from edge.transport.writing import WritingHalf


class ReadingHalf(WritingHalf):
    """When ``Connection`` is given bytes; what it does with them is its own affair."""

    __slots__ = (
        "_arrivals",
        "_lost",
        "_member",
        "_reads",
        "_sated",
        "bytes_in",
        "is_reading",
        "rest_s",
    )

    def __init__(self, transport: asyncio.Transport, owner: Owner, limits: Limits) -> None:
        super().__init__(transport, owner, limits)
        self.bytes_in = 0
        self.is_reading = True
        self.rest_s = 0.0
        """In so long what has not arrived yet will be needed; 0 when nobody knows."""
        self._reads = 0
        self._arrivals = Arrivals(owner.loop.time())
        self._member: Member | None = None
        """Set while it is read in rounds, and not by its transport."""
        self._lost = False  # the transport is gone
        self._sated = False  # answered so many pings that reading waits for the sweep

    def leave_rounds(self) -> None:
        """Let the event loop say when there is something to read."""
        if self._member is not None:
            self._member.leave()
            self._member = None
            if self.is_reading and not self._lost:
                self._transport.resume_reading()

    def _stop_reading(self) -> None:
        if self.is_reading and not self._lost:
            self.is_reading = False
            if self._member is None:
                self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self.is_reading and not self._lost and not self._sated:
            self.is_reading = True
            if self._member is None:
                self._transport.resume_reading()

    def _consider_rounds(self, now_s: float) -> None:
        """Be read in rounds from now on, if that is worth while."""
        if self._member is not None or not self.is_reading:
            return
        if self._arrivals.are_small_and_many(now_s, self._reads, self.bytes_in):
            self._member = self._owner.rounds.invite(self, self._transport)
            if self._member is not None:
                self._transport.pause_reading()
