"""One open stream of one track: fed from the track's audio, watched for stalls and pauses.

Comes in: a recognizer, the track, and where in its audio to begin. Goes out: the stream's events
with audio times of the track, and why the stream ended. Only the supervisor calls it, one link at a
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edge.asr.interface import (
    Final,
    Interim,
    Recognizer,
    RecognizerStream,
    StreamEnded,
    StreamEvent,
    StreamRequest,
)
from edge.asr.observer import RecognizerObserver
from edge.asr.settings import SupervisorSettings
from edge.asr.turns import Turns
from edge.audio.track import AudioTrack, Feed
from edge.errors import RecognizerClosed, RecognizerError, RecognizerTimeout
from edge.logs import get_logger

_log = get_logger("edge.asr.link")

SLICE_MS = 100
"""Kept audio rendered in one go, so that no replay holds up other tracks."""
BACKLOG_POLL_S = 0.05
WATCH_S = 2.0
"""How often a link looks after itself at least."""


class Link:
    """A stream and the feed that fills it: ``open``, then ``run``; ``close`` whatever happened."""

    def __init__(
        self,
        recognizer: Recognizer,
        track: AudioTrack,
        settings: SupervisorSettings,
        on_transcript: Callable[[Link, Interim | Final], None],
        observer: RecognizerObserver,
    ) -> None:
        self.provider = recognizer.name
        self._recognizer = recognizer
        self._track = track
        self._settings = settings
        self._on_transcript = on_transcript
        self._observer = observer
        self._stream: RecognizerStream | None = None
        self._feed: Feed | None = None
        self._live = False
        """Whether new audio goes to the stream by itself."""
        self._sleeper: asyncio.Future[None] | None = None
        self._ended = False
        self._error: RecognizerError | None = None
        self._finishing = False
        self._unreported_bytes = 0
        self._covered_ms = 0.0
        """Audio before this has its final or was committed."""
        self._stalled_s: float | None = None
        self._stalled_backlog_ms = 0.0

    async def open(self, request: StreamRequest, from_ms: float) -> None:
        """Open the stream and a feed that begins at ``from_ms`` of the track.

        Raises ``RecognizerError``.
        """
        provider, limit_s = self.provider, self._settings.connect_timeout_s
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                self._stream = await self._recognizer.open(request, self._on_event)
        except RecognizerError:
            raise
        except TimeoutError as error:
            raise RecognizerTimeout(f"{provider} did not connect within {limit_s:g} s") from error
        except Exception as error:
            _log.exception("recognizer could not be opened", provider=provider)
            raise RecognizerClosed(f"{provider}: {type(error).__name__} at opening") from error
        self._observer.connected(provider, time.monotonic() - started_s)
        self._observer.connection_opened(provider)
        self._covered_ms = from_ms
        self._feed = self._track.open_feed(self._recognizer.wants.rate_hz, from_ms, self._deliver)

    async def run(self) -> RecognizerError | None:
        """Feed the stream until it ends; the error it ended with, None after ``finish``."""
        feed, stream = self._feed, self._stream
        assert feed is not None and stream is not None, "open comes first"
        while not self._ended:
            if not self._live:
                await self._catch_up(feed, stream)
            elif self._finishing:
                await self._drain(stream)
                break
            else:
                now_s = time.monotonic()
                self._report_audio()
                self._commit_when_quiet(now_s, feed, stream)
                await self._sleep(self._quiet_in_s(now_s))
        return self._error

    def finish(self) -> None:
        """Let ``run`` drain the stream once it has all audio, and return."""
        self._finishing = True
        self._wake()

    async def close(self) -> None:
        """Give the feed back and close the stream; cancelling it leaves nothing open."""
        if self._feed is not None:
            self._feed.close()
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._report_audio()
        try:
            await stream.close()
        finally:
            self._observer.connection_closed(self.provider)

    @property
    def position_ms(self) -> float:
        """Audio time up to which the stream has been given audio."""
        return self._feed.delivered_ms if self._feed is not None else 0.0

    def audio_ms(self, stream_ms: float) -> float:
        """The track's audio time of a moment of the stream."""
        return self._feed.audio_ms(stream_ms) if self._feed is not None else stream_ms

    def cover(self, until_ms: float) -> None:
        """Audio before this has its final."""
        self._covered_ms = max(self._covered_ms, until_ms)

    def _deliver(self, pcm: bytes) -> None:
        stream, feed = self._stream, self._feed
        if stream is None or feed is None or self._ended:
            return
        stream.send(pcm)
        self._unreported_bytes += len(pcm)
        if stream.backlog_ms > self._settings.recognizer_backlog_ms:
            feed.pause()
            if self._live:
                self._live = False
                self._wake()

    async def _catch_up(self, feed: Feed, stream: RecognizerStream) -> None:
        """Play kept audio, a slice at a time, until the feed is live again."""
        if stream.backlog_ms > self._settings.recognizer_backlog_ms:
            self._check_stall(time.monotonic(), stream.backlog_ms)
            await self._sleep(BACKLOG_POLL_S)
            return
        self._stalled_s = None
        await Turns.here().mine()
        self._live = feed.pump(SLICE_MS)

    def _check_stall(self, now_s: float, backlog_ms: float) -> None:
        """End a stream that has taken no audio at all for too long."""
        if self._stalled_s is None or backlog_ms < self._stalled_backlog_ms:
            self._stalled_s, self._stalled_backlog_ms = now_s, backlog_ms
            return
        limit_s = self._settings.recognizer_stall_s
        if now_s - self._stalled_s > limit_s:
            self._end(RecognizerTimeout(f"{self.provider} took no audio for {limit_s:g} s"))

    def _commit_when_quiet(self, now_s: float, feed: Feed, stream: RecognizerStream) -> None:
        """Commit what was said and has no final when packets have stopped coming."""
        packet_s, limit_s = self._track.last_packet_s, self._settings.force_commit_timeout_s
        if not limit_s or packet_s is None or now_s - packet_s < limit_s:
            return
        if self._track.speech_since(self._covered_ms):
            self._covered_ms = feed.delivered_ms
            stream.commit()

    def _quiet_in_s(self, now_s: float) -> float:
        """Seconds until packets may have stopped for long enough; at most ``WATCH_S``."""
        packet_s, limit_s = self._track.last_packet_s, self._settings.force_commit_timeout_s
        if not limit_s:
            return WATCH_S
        since_s = now_s if packet_s is None else packet_s
        left_s = since_s + limit_s - now_s
        return min(left_s if left_s > 0 else limit_s, WATCH_S)

    async def _drain(self, stream: RecognizerStream) -> None:
        """Wait for the last finals, or for the stream's end."""
        self._track.finish()
        drained = asyncio.ensure_future(stream.drain())
        woken = asyncio.ensure_future(self._ended_event())
        try:
            await asyncio.wait((drained, woken), return_when=asyncio.FIRST_COMPLETED)
            if drained.done():
                drained.result()
        finally:
            drained.cancel()
            woken.cancel()
            await asyncio.gather(drained, woken, return_exceptions=True)

    async def _ended_event(self) -> None:
        while not self._ended:
            await self._sleep(WATCH_S)

    async def _sleep(self, seconds: float) -> None:
        """Until something happens; the few bytes of it are held by every stream of a worker."""
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._sleeper
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _on_event(self, event: StreamEvent) -> None:
        if self._ended:
            return
        if isinstance(event, StreamEnded):
            self._end(event.error or RecognizerClosed(f"{self.provider} ended the stream"))
        else:
            self._on_transcript(self, event)

    def _end(self, error: RecognizerError) -> None:
        self._ended = True
        self._error = error
        self._wake()

    def _report_audio(self) -> None:
        size, self._unreported_bytes = self._unreported_bytes, 0
        if size:
            self._observer.audio_sent(self.provider, size)
