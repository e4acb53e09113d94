"""A live session: the tracks of one client connection and where their transcripts go.

A fault stays where it happens: a tag whose audio or recognizer fails is told so and closed, the other
tags of the session never notice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

import msgspec

from edge.asr.transcript import Transcript
from edge.audio.track import AudioTrack
from edge.errors import RecognizerError
from edge.logs import get_logger
from edge.session.dump import Dumps
from edge.session.settings import SessionSettings
from edge.transport.interface import Close


_log = get_logger("edge.session.live")


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for when its connection opened."""

    session_id: str | None = None
    provider: str | None = None
    """The one recognizer to use; None lets the gateway choose, with fail-over."""
    language: str | None = None
    recognizer_tags: tuple[str, ...] = ()
    use_dispatcher: bool = False


class SpokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A transcript of one tag, with its times on the session's clock in milliseconds."""

    tag: str
    transcript: Transcript
    start_ms: float
    end_ms: float


class SessionOutlet(Protocol):
    """The client's side of a session; called on the event loop, must not block."""

    def transcript(self, line: SpokenLine) -> None:
        """An interim or final transcript, as soon as it is known."""
        ...

    def tag_failed(self, tag: str, code: str, message: str) -> None:
        """This tag gets no more transcripts; called once per tag."""
        ...


class Transcriber(Protocol):
    """What drives a track's recognizer: ``edge.asr.supervisor.Supervisor``."""

    def start(self) -> None: ...

    async def finish(self, deadline_s: float) -> None:
        """Flush every track and wait for its last finals, at most ``deadline_s`` seconds.

        Cancelling it stops the waiting, not the flushing. Tracks that open meanwhile are left alone.
        """
        while self.tracks:
            _, track = self.tracks.popitem()
            self._keep(self._finish(track, deadline_s))
        if self._closing:
            await asyncio.wait(self._closing)

    async def _finish(self, track: LiveTrack, deadline_s: float) -> None:
        try:
            if track.transcriber:
                await track.transcriber.finish(deadline_s)
        finally:
            self._host.close_track(track)

    async def _abort(self, track: LiveTrack, transcriber: Transcriber) -> None:
        try:
            await transcriber.abort()
        finally:
            self._host.close_track(track)

    def _keep(self, ending: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
