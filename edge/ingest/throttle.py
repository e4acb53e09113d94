"""When one connection is left unread: it sends too much, or its tracks have enough to play."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from edge.ingest.counts import IngestCounts
from edge.ingest.pace import Pace, Waiting
from edge.logs import Repeats
from edge.session.live_track import LiveTrack
from edge.transport.interface import Socket


class Throttle:
    """Pauses a socket and resumes it in time; ``close`` it with the connection."""

    def __init__(self, socket: Socket, per_s: int, counts: IngestCounts, repeats: Repeats) -> None:
        self._socket = socket
        self._per_s = per_s
        self._counts = counts
        self._repeats = repeats
        self._pace = Pace(per_s, time.monotonic())
        self._waiting = Waiting()
        self._unread: Iterable[LiveTrack] = ()
        self._resuming: asyncio.TimerHandle | None = None

    def spend(self, events: float, now_s: float) -> None:
        """Count so many events; over the pace the socket is left unread for a while."""
        if (wait_s := self._pace.spend(now_s, events)) and self._socket.is_open:
            self._repeats.note("too many events; reading more slowly", limit_per_s=self._per_s)
            self._leave_unread(wait_s)

    def wait_for(
        self, tracks: Iterable[LiveTrack], now_s: float, unread: Iterable[LiveTrack]
    ) -> None:
        """Read no further while a sender that is ahead of real time has enough to be played.

        ``unread`` are all tracks of the connection: what is left unread comes late for each.
        """
        if self._socket.is_open and (wait_s := self._waiting.begin(tracks, now_s)):
            self._unread = unread
            self._leave_unread(wait_s)

    def close(self) -> None:
        """The connection is over."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    def _leave_unread(self, wait_s: float) -> None:
        self._counts.slowed += 1
        self._socket.pause()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        if self._resuming is not None:
            until_s = max(until_s, self._resuming.when())
            self._resuming.cancel()
        self._resuming = loop.call_at(until_s, self._read_on)

    def _read_on(self) -> None:
        self._resuming = None
        now_s = time.monotonic()
        if self._waiting:
            for track in self._unread:
                track.audio.excuse(now_s)
        if wait_s := self._waiting.go_on(now_s):
            self._resuming = asyncio.get_running_loop().call_later(wait_s, self._read_on)
        else:
            self._socket.resume()
