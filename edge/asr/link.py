"""One open stream of one track: fed from the track's audio, watched for silence and pauses.

Comes in: a recognizer, the track, and where in its audio to begin. Goes out: the stream's events
with audio times of the track, and why the stream ended. Only the supervisor calls it, one link at a
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from edge.asr.interface import (
    AudioWanted,
    EngineMessage,
    Final,
    Interim,
    Recognizer,
    RecognizerStream,
    StreamEnded,
    StreamEvent,
    StreamRequest,
)
from edge.asr.observer import RecognizerObserver
from edge.asr.pursuit import Pursuit
from edge.asr.settings import SupervisorSettings
from edge.asr.turn_ends import TurnEnds
from edge.asr.turns import Turns
from edge.asr.vigil import Vigil
from edge.audio.track import AudioTrack, Feed
from edge.beat import beat_after
from edge.errors import RecognizerClosed, RecognizerError, RecognizerTimeout
from edge.logs import get_logger

_log = get_logger("edge.asr.link")

BACKLOG_POLL_S = 0.05
WATCH_S = 2.0
"""How often a link looks after itself at least."""
WARM_UP_MS = 80.0
"""Audio that a decoder gets before it is heard: it converges on the speech (RFC 7845 4.6)."""
KEPT_MS = 100.0
"""What a feed that waited too long for its turn still plays of what it owes: the newest."""
DRAIN_S = 10.0
"""How long the last finals are awaited of a stream that is closed in mid-track."""

Pause = Literal["finish", "idle", "form"]
"""Why a stream is drained: the track ends, nothing is said, it cannot take what comes in now."""


class Link:
    """A stream and the feed that fills it: ``open``, then ``run``; ``close`` whatever happened."""

    def __init__(
        self,
        recognizer: Recognizer,
        track: AudioTrack,
        settings: SupervisorSettings,
        turn_ends: TurnEnds,
        on_transcript: Callable[[Link, Interim | Final], None],
        observer: RecognizerObserver,
        on_message: Callable[[EngineMessage], None] | None = None,
    ) -> None:
        """``on_message`` is told what the service itself says, if it is a request's wish."""
        self.provider = recognizer.name
        self._on_message = on_message
        self._recognizer = recognizer
        self._track = track
        self._settings = settings
        self._turn_ends = turn_ends
        self._on_transcript = on_transcript
        self._observer = observer
        self._stream: RecognizerStream | None = None
        self._feed: Feed | None = None
        self._wanted = AudioWanted()
        self._live = False
        """Whether new audio goes to the stream by itself."""
        self._sleeper: asyncio.Future[None] | None = None
        self._ended = False
        self._error: RecognizerError | None = None
        self._pause: Pause | None = None
        self._unreported_bytes = 0
        self._unheard_bytes = 0
        """PCM at the beginning that is there for the decoder only."""
        self._covered_ms = 0.0
        """Audio before this has its final or was committed."""
        self.ended_turns_ms = 0.0
        """Turns that were to end before this have been ended."""
        self._sound_ms = 0.0
        """Where the track ended when there was sound last."""
        self._sound_s = 0.0
        self._pursuit = Pursuit(0.0)
        self._stalled_s: float | None = None
        self._stalled_backlog_ms = 0.0
        self._vigil = Vigil(settings.recognizer_silent_s)
        self._most_backlog_ms = settings.recognizer_backlog_ms
        self.settled_ms: float | None = None
        """Once drained: audio before this has been heard and has its text."""

    async def open(self, request: StreamRequest, from_ms: float, limit_s: float) -> None:
        """Open the stream and a feed that begins at ``from_ms`` of the track.

        Raises ``RecognizerError``.
        """
        provider, track = self.provider, self._track
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                asked = msgspec.structs.replace(request, is_behind=self._is_behind)
                self._stream = await self._recognizer.open(asked, self._on_event)
        except RecognizerError:
            raise
        except TimeoutError as error:
            raise RecognizerTimeout(f"{provider} did not connect within {limit_s:g} s") from error
        except Exception as error:
            _log.exception("recognizer could not be opened", provider=provider)
            raise RecognizerClosed(f"{provider}: {type(error).__name__} at opening") from error
        self._sound_s = time.monotonic()
        self._observer.connected(provider, self._sound_s - started_s)
        self._observer.connection_opened(provider)
        self._covered_ms, self._sound_ms = from_ms, track.end_ms
        self.ended_turns_ms = from_ms
        self._pursuit = Pursuit(track.end_ms)
        self._wanted = self._recognizer.wants_for(request.source)
        self._open_feed(from_ms)
        if self._on_message and not self._recognizer.has_messages:
            self._hand_on(self._on_message, EngineMessage(body=b"", kind="Connected"))

    async def run(self) -> RecognizerError | None:
        """Feed the stream until it ends, or is drained for a ``pause``; the error it ended with."""
        feed, stream = self._feed, self._stream
        assert feed is not None and stream is not None, "open comes first"
        while not self._ended:
            now_s = time.monotonic()
            self._check_silence(now_s, stream)
            if not self._live:
                await self._catch_up(feed, stream)
            elif self._pause is not None:
                await self._drain(self._pause, feed, stream)
                break
            else:
                self._report_audio()
                self._commit_when_quiet(now_s, feed, stream)
                self._look_for_pause(now_s)
                if self._pause is None:
                    await self._sleep(self._next_look_s(now_s))
        return self._error

    def finish(self, deadline_s: float) -> None:
        """Let ``run`` drain the stream once it has all audio, and return."""
        self._pause = self._pause or "finish"
        self._vigil.hurry(deadline_s)
        self._wake()

    def end_turns(self) -> None:
        """End the turns that are to end here; while it catches up they end where they come."""
        feed, stream = self._feed, self._stream
        if feed is not None and stream is not None and self._live and not self._ended:
            self._end_turns(feed, stream)

    def _end_turns(self, feed: Feed, stream: RecognizerStream) -> None:
        end_ms = self._turn_ends.after(self.ended_turns_ms)
        while end_ms is not None and (self._live or feed.played_ms >= end_ms):
            self.ended_turns_ms = end_ms
            feed.flush()
            self._commit(feed, stream)
            end_ms = self._turn_ends.after(end_ms)

    def _commit(self, feed: Feed, stream: RecognizerStream) -> None:
        """Commit what was sent and has no final."""
        if self._track.speech_since(self._covered_ms):
            self._covered_ms = feed.delivered_ms
            stream.commit()

    def _is_behind(self) -> bool:
        return not self._live

    def share(self, context: str) -> bool:
        """See ``RecognizerStream.share``."""
        return self._stream is not None and self._stream.share(context)

    async def close(self) -> None:
        """Give the feed back and close the stream; cancelling it leaves nothing open."""
        self.release()
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._report_audio()
        try:
            await stream.close()
        finally:
            self._observer.connection_closed(self.provider)

    def release(self) -> None:
        """Take no more audio and tell nothing more; ``close`` is still owed."""
        self._ended = True
        if self._feed is not None:
            self._feed.close()

    @property
    def position_ms(self) -> float:
        """Audio time up to which the stream has been given audio."""
        return self._feed.delivered_ms if self._feed is not None else 0.0

    @property
    def is_live(self) -> bool:
        """Whether new audio goes to the stream by itself."""
        return self._live

    @property
    def unsent_ms(self) -> float:
        """Audio that the stream has and its service has not."""
        return self._stream.backlog_ms if self._stream is not None else 0.0

    def audio_ms(self, stream_ms: float) -> float:
        """The track's audio time of a moment of the stream."""
        return self._feed.audio_ms(stream_ms) if self._feed is not None else stream_ms

    def cover(self, until_ms: float) -> None:
        """Audio before this has its final."""
        self._covered_ms = max(self._covered_ms, until_ms)

    def _open_feed(self, from_ms: float) -> None:
        track, wanted = self._track, self._wanted
        if wanted.encoding == "pcm16":
            self._feed = track.open_feed(wanted.rate_hz, from_ms - WARM_UP_MS, self._deliver)
            samples = round((from_ms - self._feed.start_ms) * wanted.rate_hz / 1000)
            self._unheard_bytes = max(samples, 0) * 2
        else:
            self._feed = track.open_feed(
                wanted.rate_hz,
                from_ms,
                self._deliver,
                wanted.encoding,
                deliver_packets=self._deliver_packets if wanted.encoding == "opus" else None,
                on_form_changed=self._wake,
            )

    def _deliver(self, audio: bytes) -> None:
        stream = self._stream
        if stream is None or self._ended:
            return
        if self._unheard_bytes:
            unheard = min(self._unheard_bytes, len(audio))
            self._unheard_bytes -= unheard
            audio = bytes(unheard) + audio[unheard:]
        stream.send(audio)
        self._unreported_bytes += len(audio)
        if stream.backlog_ms > self._most_backlog_ms:
            self._heed_backlog()

    def _deliver_packets(self, packets: Sequence[bytes]) -> None:
        stream = self._stream
        if stream is None or self._ended:
            return
        stream.send_packets(packets)
        self._unreported_bytes += sum(map(len, packets))
        if stream.backlog_ms > self._most_backlog_ms:
            self._heed_backlog()

    def _heed_backlog(self) -> None:
        """Let new audio wait in the track."""
        if self._feed is not None:
            self._feed.pause()
            if self._live:
                self._live = False
                self._wake()

    async def _catch_up(self, feed: Feed, stream: RecognizerStream) -> None:
        """Play kept audio, a slice at a time, until the feed is live again."""
        if stream.backlog_ms > self._most_backlog_ms:
            self._check_stall(time.monotonic(), stream.backlog_ms)
            self._pursuit.rest(self._track.end_ms)
            await self._sleep(BACKLOG_POLL_S)
            return
        self._stalled_s = None
        since_s = time.monotonic()
        await Turns.here().mine()
        now_s, track = time.monotonic(), self._track
        waited_s = now_s - since_s
        if self._pursuit.is_lost(waited_s, feed.delivered_ms) and not track.is_ahead(now_s):
            feed.give_up(KEPT_MS)
        slice_ms = self._pursuit.slice_ms(waited_s)
        end_ms = self._turn_ends.after(self.ended_turns_ms)
        if end_ms is not None:
            slice_ms = min(slice_ms, end_ms - feed.played_ms)
        self._live = feed.pump(slice_ms)
        if feed.form_changed:
            self._pause = "form"
        else:
            self._end_turns(feed, stream)

    def _check_stall(self, now_s: float, backlog_ms: float) -> None:
        """End a stream that has taken no audio at all for too long."""
        if self._stalled_s is None or backlog_ms < self._stalled_backlog_ms:
            self._stalled_s, self._stalled_backlog_ms = now_s, backlog_ms
            return
        limit_s = self._settings.recognizer_stall_s
        if now_s - self._stalled_s > limit_s:
            self._end(RecognizerTimeout(f"{self.provider} took no audio for {limit_s:g} s"))

    def _check_silence(self, now_s: float, stream: RecognizerStream) -> None:
        """End a stream whose service owes text and says nothing."""
        silent_s = self._vigil.look(now_s, stream)
        if silent_s is not None:
            self._end(RecognizerTimeout(f"{self.provider} has said nothing for {silent_s:.1f} s"))

    def _commit_when_quiet(self, now_s: float, feed: Feed, stream: RecognizerStream) -> None:
        """Commit what was said and has no final when packets have stopped coming."""
        packet_s, limit_s = self._track.last_packet_s, self._settings.force_commit_timeout_s
        if limit_s <= 0 or packet_s is None or now_s - packet_s < limit_s:
            return
        self._commit(feed, stream)

    def _look_for_pause(self, now_s: float) -> None:
        """Whether nothing has been said for long, or another form of audio is better now."""
        track = self._track
        if self._feed is not None and self._feed.form_changed:
            self._pause = "form"
        elif track.speech_since(self._sound_ms):
            self._sound_ms, self._sound_s = track.end_ms, now_s
        elif self._idle_in_s(now_s) <= 0:
            self._pause = "idle"
        elif (
            not track.speech_since(self._covered_ms)
            and self._recognizer.wants_for(track.source) != self._wanted
        ):
            self._pause = "form"

    def _idle_in_s(self, now_s: float) -> float:
        idle_s = self._settings.recognizer_idle_s
        return self._sound_s + idle_s - now_s if idle_s else WATCH_S

    def _next_look_s(self, now_s: float) -> float:
        """Seconds until packets may have stopped for long enough, or silence, or idleness may."""
        packet_s, limit_s = self._track.last_packet_s, self._settings.force_commit_timeout_s
        look_s = min(WATCH_S, self._vigil.next_s, max(self._idle_in_s(now_s), 0.0))
        if limit_s <= 0:
            return look_s
        left_s = (now_s if packet_s is None else packet_s) + limit_s - now_s
        return min(left_s if left_s > 0 else limit_s, look_s)

    async def _drain(self, pause: Pause, feed: Feed, stream: RecognizerStream) -> None:
        """Wait for the last finals, or for the stream's end."""
        if pause == "finish":
            self._track.finish()
        feed.pause()
        heard_ms = feed.delivered_ms
        give_up_s = time.monotonic() + DRAIN_S
        drained = asyncio.ensure_future(stream.drain())
        drained.add_done_callback(lambda _: self._wake())
        try:
            while not drained.done() and not self._ended:
                now_s = time.monotonic()
                self._check_silence(now_s, stream)
                if pause != "finish" and now_s > give_up_s:
                    self._end(RecognizerTimeout(f"{self.provider} keeps its last text back"))
                await self._sleep(min(WATCH_S, self._vigil.next_s))
            if not self._ended:
                drained.result()
                self.settled_ms = heard_ms
        finally:
            drained.cancel()
            await asyncio.gather(drained, return_exceptions=True)

    async def _sleep(self, seconds: float) -> None:
        """Until something happens; the few bytes of it are held by every stream of a worker."""
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        timer = loop.call_at(beat_after(loop.time(), seconds), self._wake)
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
        elif isinstance(event, EngineMessage):
            if self._on_message is not None:
                self._hand_on(self._on_message, event)
        else:
            self._on_transcript(self, event)

    def _hand_on(self, tell: Callable[[EngineMessage], None], message: EngineMessage) -> None:
        start_ms, end_ms = self.audio_ms(message.start_ms), self.audio_ms(message.end_ms)
        try:
            tell(
                msgspec.structs.replace(
                    message, start_ms=start_ms, end_ms=end_ms, provider=self.provider
                )
            )
        except Exception:
            _log.exception("a message of a service could not be handed on", provider=self.provider)

    def _end(self, error: RecognizerError) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _report_audio(self) -> None:
        size, self._unreported_bytes = self._unreported_bytes, 0
        if size:
            self._observer.audio_sent(self.provider, size)
