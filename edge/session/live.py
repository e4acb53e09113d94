"""A live session: the tracks of one client connection and where their transcripts go.

A fault stays where it happens: a tag whose audio or recognizer fails is told so and closed, the
other tags of the session never notice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine

from edge.asr.transcript import Transcript
from edge.audio.pcm import PcmFormat
from edge.audio.track import AudioTrack
from edge.errors import RecognizerError
from edge.logs import Repeats, get_logger
from edge.session.interface import (
    SessionOutlet,
    SessionRequest,
    SpokenLine,
    TrackHost,
    Transcriber,
)

_log = get_logger("edge.session.live")


class LiveTrack:
    """One tag's audio and recognizer; the listener of its supervisor."""

    __slots__ = ("_session", "audio", "packet", "tag", "transcriber")

    def __init__(self, session: LiveSession, tag: str, audio: AudioTrack) -> None:
        self._session = session
        self.tag = tag
        self.audio = audio
        self.packet = audio.packet
        self.transcriber: Transcriber | None = None

    @property
    def repeats(self) -> Repeats:
        """What its session logs of failures."""
        return self._session.repeats

    def interim(self, transcript: Transcript) -> None:
        """An utterance of this tag has new text so far."""
        self._session.deliver(self, transcript)

    def final(self, transcript: Transcript) -> None:
        """An utterance of this tag is finished."""
        self._session.deliver(self, transcript)

    def failed(self, error: RecognizerError) -> None:
        """No recognizer will take this tag."""
        self._session.refuse(self.tag, "recognizer_failed", str(error))

    def broken(self, error: BaseException) -> None:
        """A fault of ours on this tag's way; the other tags go on."""
        self.repeats.note("a track broke", "error", tag=self.tag, exc_info=error)
        self._session.refuse(self.tag, "recognizer_failed", "The gateway failed on this tag")


class LiveSession:
    """Tracks by tag, opened on first sight and ended together."""

    def __init__(
        self,
        request: SessionRequest,
        outlet: SessionOutlet,
        host: TrackHost,
        new_audio: Callable[[], AudioTrack],
        *,
        max_tags: int,
    ) -> None:
        self.request = request
        self.opened_s = time.monotonic()
        self.tracks: dict[str, LiveTrack] = {}
        self.refused: dict[str, str] = {}
        """Why a tag is refused, by tag; while it is full no tag opens that is not running."""
        self.repeats = Repeats(_log)
        """Logs a failure that its tracks share once and counts the rest."""
        self.finals = 0
        self.interims = 0
        self._outlet = outlet
        self._host = host
        self._new_audio = new_audio
        self._max_tags = max_tags
        self._max_refused = 2 * max_tags
        self._endings: dict[asyncio.Task[None], Transcriber | None] = {}

    def track(self, tag: str) -> LiveTrack | None:
        """The running track of a tag, opened now if need be; None while the tag is refused."""
        if track := self.tracks.get(tag):
            return track
        if tag in self.refused or len(self.refused) >= self._max_refused:
            return None
        if len(self.tracks) >= self._max_tags:
            self.refuse(tag, "too_many_tags", f"A connection may open {self._max_tags} tags")
            return None
        track = LiveTrack(self, tag, self._new_audio())
        transcriber = self._host.open_track(track, self.request)
        if transcriber is None:
            self.refuse(tag, "overloaded", "This worker carries as many tracks as it may")
            return None
        track.transcriber = transcriber
        self.tracks[tag] = track
        transcriber.start()
        return track

    def restart(self, tag: str, pcm: PcmFormat | None = None) -> None:
        """A usable format was announced, Opus or PCM: lift a refusal, open or restart the tag."""
        self.refused.pop(tag, None)
        if track := self.track(tag):
            track.audio.restart(pcm)

    def refuse(self, tag: str, code: str, message: str) -> None:
        """Take no more audio of a tag and say so once; a running track is closed."""
        if tag in self.refused:
            return
        track = self.tracks.pop(tag, None)
        if len(self.refused) < self._max_refused:
            self.refused[tag] = code
        elif track is None:
            return
        self._outlet.tag_failed(tag, code, message)
        if track and track.transcriber:
            self._keep(self._abort(track, track.transcriber), track)

    def deliver(self, track: LiveTrack, transcript: Transcript) -> None:
        """Map a transcript to the session clock and hand it to the client at once."""
        timeline = track.audio.timeline
        if transcript.is_final:
            self.finals += 1
        else:
            self.interims += 1
        sent = self._outlet.transcript(
            SpokenLine(
                tag=track.tag,
                transcript=transcript,
                start_ms=timeline.map_ms(transcript.start_ms),
                end_ms=timeline.map_ms(transcript.end_ms),
            )
        )
        self._host.delivered(track, transcript, sent=sent)

    async def finish(self, deadline_s: float) -> None:
        """Flush every track and wait for its last finals, at most ``deadline_s`` seconds.

        Cancelling it stops the waiting, not the flushing. Tracks that open meanwhile go on.
        """
        while self.tracks:
            _, track = self.tracks.popitem()
            self._keep(self._finish(track, deadline_s), track)
        if self._endings:
            await asyncio.wait(self._endings)

    async def abort(self) -> None:
        """End at once what ``finish`` or a refusal still waits for; no transcript follows."""
        endings = dict(self._endings)
        if endings:
            transcribers = [transcriber for transcriber in endings.values() if transcriber]
            await asyncio.gather(*(transcriber.abort() for transcriber in transcribers))
            await asyncio.wait(endings)

    async def _finish(self, track: LiveTrack, deadline_s: float) -> None:
        try:
            if track.transcriber:
                await track.transcriber.finish(deadline_s)
        except Exception as error:
            _log.error("a track could not be finished", tag=track.tag, exc_info=error)
        finally:
            self._host.close_track(track)

    async def _abort(self, track: LiveTrack, transcriber: Transcriber) -> None:
        try:
            await transcriber.abort()
        finally:
            self._host.close_track(track)

    def _keep(self, ending: Coroutine[None, None, None], track: LiveTrack) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._endings[task] = track.transcriber
        task.add_done_callback(self._endings.pop)
