"""Tracks that end: their last finals are awaited, or not, in tasks that are owned here.

Comes in: tracks that nobody feeds any more. Goes out: nothing but that they are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from edge.logs import get_logger
from edge.session.interface import TrackHost, Transcriber
from edge.session.live_track import LiveTrack

_log = get_logger("edge.session.endings")


class Endings:
    """One session's; all methods are for the event loop's thread."""

    def __init__(self, host: TrackHost) -> None:
        self._host = host
        self._tasks: dict[asyncio.Task[None], Transcriber | None] = {}

    def finish(self, track: LiveTrack, deadline_s: float) -> None:
        """Flush a track, await its last finals for so long, and close it."""
        self._keep(self._finish(track, deadline_s), track)

    def finish_all(self, tracks: dict[str, LiveTrack], deadline_s: float) -> None:
        """The same with all of these, which are taken out."""
        while tracks:
            _, track = tracks.popitem()
            self.finish(track, deadline_s)

    def abort(self, track: LiveTrack) -> None:
        """End a track at once and close it; no transcript follows."""
        if track.transcriber:
            self._keep(self._abort(track, track.transcriber), track)

    async def done(self) -> None:
        """Wait until all that end now have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def abort_all(self) -> None:
        """End at once what is still waited for."""
        tasks = dict(self._tasks)
        if tasks:
            transcribers = [transcriber for transcriber in tasks.values() if transcriber]
            await asyncio.gather(*(transcriber.abort() for transcriber in transcribers))
            await asyncio.wait(tasks)

    async def _finish(self, track: LiveTrack, deadline_s: float) -> None:
        try:
            if track.transcriber:
                await track.transcriber.finish(deadline_s)
        except Exception as error:
            _log.error("a track could not be finished", tag=track.tag, exc_info=error)
        finally:
            self._close(track)

    async def _abort(self, track: LiveTrack, transcriber: Transcriber) -> None:
        try:
            await transcriber.abort()
        finally:
            self._close(track)

    def _close(self, track: LiveTrack) -> None:
        self._host.close_track(track)
        track.writer.finish()
        # Its transcriber holds the track: together they would wait for the garbage collector,
        # which comes after hundreds of tracks.
        track.transcriber = None

    def _keep(self, ending: Coroutine[None, None, None], track: LiveTrack) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._tasks[task] = track.transcriber
        task.add_done_callback(self._tasks.pop)
