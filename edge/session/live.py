"""A live session: the tracks of its client connections and where their transcripts go.

A fault stays where it happens: a tag whose audio or recognizer fails is told so and closed, the
other tags of the session never notice. Connections come and go; the tracks stay.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine

from edge.asr.interface import EngineMessage
from edge.asr.transcript import Transcript
from edge.audio.origin import MediaOrigin, SessionTime
from edge.audio.track import AudioTrack
from edge.errors import RecognizerError
from edge.logs import Repeats, get_logger
from edge.session.attachment import Attachment
from edge.session.context import SharedContext
from edge.session.interface import (
    SessionOutlet,
    SessionRequest,
    SpokenLine,
    TagFailure,
    TrackHost,
    Transcriber,
    participant_id,
)
from edge.session.settings import SessionSettings

_log = get_logger("edge.session.live")

MOST_TAKEOVERS = 3
TAKEOVERS_WITHIN_S = 10.0
"""After so many takeovers within so long the clients are two: both stay."""


AHEAD_MS = 1000.0
"""A burst after a stall of the network is no more than this as a rule."""
CREDIT_S = 20.0
"""What a sender that was silent or away may catch up with before it counts as ahead."""


class LiveTrack:
    """One tag's audio and recognizer; the listener of its supervisor."""

    __slots__ = (
        "_began_s",
        "_hears",
        "_session",
        "audio",
        "intake",
        "opened_s",
        "others_said",
        "owner",
        "packet",
        "tag",
        "transcriber",
    )

    def __init__(self, session: LiveSession, owner: Attachment, tag: str) -> None:
        self._session = session
        self.owner: Attachment | None = owner
        """The connection that feeds it; None when that is gone and no other has sent for it."""
        self.tag = tag
        self.audio = session.new_audio(owner.origin)
        if container := session.request.container:
            self.audio.restart(container=container)
        self._hears: Callable[[EngineMessage], None] | None = None
        self.packet = self.audio.packet
        self.intake = self.audio.intake
        self.opened_s = self._began_s = time.monotonic()
        self.others_said = ""
        """The newest words of the other tags, where recognizers are told of them."""
        self.transcriber: Transcriber | None = None

    @property
    def repeats(self) -> Repeats:
        """What its session logs of failures."""
        return self._session.repeats

    def is_ahead(self, now_s: float) -> bool:
        """Whether its sender is well ahead of real time."""
        end_ms = self.audio.end_ms
        self._began_s = max(self._began_s, now_s - end_ms / 1000 - CREDIT_S)
        return end_ms > 1000 * (now_s - self._began_s) + AHEAD_MS

    def must_wait(self, now_s: float, crowding: float = 1.0) -> bool:
        """Whether its sender is ahead and more of its audio waits to be played than may.

        What a recognizer that fails does not take makes it wait no longer than time needs to come
        up with it. A tag that is closed makes nobody wait.
        """
        is_open = self.transcriber is not None
        return is_open and self.audio.crowding >= crowding and self.is_ahead(now_s)

    def interim(self, transcript: Transcript) -> None:
        """An utterance of this tag has new text so far."""
        self._session.deliver(self, transcript)

    def final(self, transcript: Transcript) -> None:
        """An utterance of this tag is finished."""
        self._session.deliver(self, transcript)

    def engine(self, message: EngineMessage) -> None:
        """What this tag's recognizer says in its own words; who was there last hears it, too."""
        if target := self._session.audience(self):
            self._hears = target.on_message
        if self._hears is not None:
            self._hears(message)

    def failed(self, error: RecognizerError) -> None:
        """No recognizer will take this tag."""
        self._session.fail(self, str(error))

    def broken(self, error: BaseException) -> None:
        """A fault of ours on this tag's way; the other tags go on."""
        self.repeats.note("a track broke", "error", tag=self.tag, exc_info=error)
        self._session.fail(self, "The gateway failed on this tag")


class LiveSession:
    """Tracks by tag, opened on first sight and ended together; connections that come and go.

    A connection's tracks outlive it: they are *inherited* by the next one, which takes each over
    with the first packet it sends for the tag, decoder and recognizer as they are.
    """

    def __init__(
        self,
        request: SessionRequest,
        host: TrackHost,
        new_audio: Callable[[MediaOrigin], AudioTrack],
        settings: SessionSettings,
    ) -> None:
        self.request = request
        self.opened_s = time.monotonic()
        self.new_audio = new_audio
        self.attachments: list[Attachment] = []
        """Connections that are attached, the newest last."""
        self.refused: dict[str, str] = {}
        """Why a tag is refused, by tag; while it is full no tag opens that is not running."""
        self.repeats = Repeats(_log)
        """Logs a failure that its tracks share once and counts the rest."""
        self.finals = 0
        self.interims = 0
        self.is_shared = False
        """Whether its clients took it from one another so often that all of them stay."""
        self.missed: deque[SpokenLine | TagFailure] = deque()
        """What no client was there for, oldest first."""
        self.missed_dropped = 0
        """Finals that were given up because too many waited."""
        self._ended = False
        """Whether its clients have ended it: nobody will ask for what they missed."""
        self._host = host
        self._settings = settings
        self._inherited: dict[str, LiveTrack] = {}
        self._heir: Attachment | None = None
        """Who gets what inherited tracks say; None while the last client lost is awaited."""
        self._newest: SessionOutlet | None = None
        self._origin: MediaOrigin | None = None
        self._takeovers_s: deque[float] = deque(maxlen=MOST_TAKEOVERS)
        self._endings: dict[asyncio.Task[None], Transcriber | None] = {}
        size = settings.broadcast_transcripts_max_size if settings.broadcast_transcripts else 0
        self._context = SharedContext(size, self._tracks) if size else None

    @property
    def resumable(self) -> bool:
        """Whether a client that is lost may come back to it."""
        return self._settings.session_resume_enabled and self.request.session_id is not None

    @property
    def inherits(self) -> bool:
        """Whether it has tracks that no connection feeds."""
        return bool(self._inherited)

    @property
    def is_over(self) -> bool:
        """Whether its clients have ended it: who comes now begins another."""
        return bool(self.attachments) and all(each.ended for each in self.attachments)

    # Connections

    def attach(self, outlet: SessionOutlet, now_s: float) -> Attachment:
        """A client connects: alone, back again, in the place of another, or beside others."""
        origin = MediaOrigin(self._origin, self._time(now_s))
        if self.attachments and not self._joins(now_s):
            self._takeovers_s.append(now_s)
            for older in tuple(self.attachments):
                self.attachments.remove(older)
                self._bequeath(older)
                older.outlet.superseded()
        attachment = Attachment(self, outlet, origin)
        self.attachments.append(attachment)
        self._origin, self._heir, self._newest = origin, attachment, outlet
        return attachment

    def detach(self, attachment: Attachment, *, commit: bool) -> None:
        """A client is lost: keep its tracks, and commit what was said unless they end anyway."""
        self.attachments.remove(attachment)
        self._heir = None
        for track in self._bequeath(attachment):
            if commit and track.transcriber:
                track.transcriber.commit()

    def catch_up(self, attachment: Attachment) -> None:
        """Send what waits for a client, until it is gone again."""
        outlet, missed = attachment.outlet, self.missed
        while missed and outlet.is_open:
            line = missed[0]
            if isinstance(line, TagFailure):
                outlet.tag_failed(line)
            elif outlet.missed(line):
                self._host.caught_up(line)
            else:
                break
            missed.popleft()

    def give_up(self) -> None:
        """A client did not go on with all its tracks in time: end those it left."""
        self._heir = self.attachments[-1]
        self.catch_up(self._heir)
        self._finish_tracks(self._inherited, self._settings.finish_deadline_s)

    def _joins(self, now_s: float) -> bool:
        taken_s = self._takeovers_s
        if len(taken_s) == MOST_TAKEOVERS and now_s - taken_s[0] <= TAKEOVERS_WITHIN_S:
            if not self.is_shared:
                _log.info("clients share a session", session=self.request.session_id)
            self.is_shared = True
        return self.is_shared

    def _bequeath(self, attachment: Attachment) -> list[LiveTrack]:
        tracks = list(attachment.tracks.values())
        attachment.tracks.clear()
        for track in tracks:
            track.owner = None
            if older := self._inherited.pop(track.tag, None):
                self._keep(self._finish(older, self._settings.finish_deadline_s), older)
            self._inherited[track.tag] = track
        return tracks

    def _time(self, now_s: float) -> SessionTime | None:
        audios = [track.audio for track in self._tracks()]
        clocks_ms = [audio.session_now_ms(now_s) for audio in audios]
        known_ms = [clock_ms for clock_ms in clocks_ms if clock_ms is not None]
        if not known_ms:
            return None
        heard_ms = max(audio.timeline.map_ms(audio.end_ms) for audio in audios)
        return SessionTime(heard_ms, max(known_ms), now_s)

    # Tracks

    def open_track(self, attachment: Attachment, tag: str) -> LiveTrack | None:
        """A connection sends for a tag that is not its own yet; None while the tag is refused."""
        if tag in self.refused or len(self.refused) >= 2 * self._settings.max_tags:
            return None
        if track := self._inherited.pop(tag, None):
            track.audio.rejoin(attachment.origin)
            track.owner = attachment
            attachment.tracks[tag] = track
            return track
        max_tags = self._settings.max_tags
        if len(attachment.tracks) + len(self._inherited) >= max_tags:
            message = f"A connection may open {max_tags} tags"
            self.refuse(attachment, tag, "too_many_tags", message)
            return None
        track = LiveTrack(self, attachment, tag)
        transcriber = self._host.open_track(track, self.request)
        if transcriber is None:
            message = "This worker carries as many tracks as it may"
            self.refuse(attachment, tag, "overloaded", message)
            return None
        track.transcriber = transcriber
        attachment.tracks[tag] = track
        transcriber.start()
        return track

    def fail(self, track: LiveTrack, message: str) -> None:
        """No transcripts will come of a track: refuse its tag, unless a newer track has that."""
        running = track.owner.tracks if track.owner else self._inherited
        if running.get(track.tag) is not track and any(
            other.tag == track.tag for other in self._tracks()
        ):
            self.repeats.note("a track failed while it ended", reason=message)
            return
        self.refuse(track.owner, track.tag, "recognizer_failed", message)

    def refuse(self, owner: Attachment | None, tag: str, code: str, message: str) -> None:
        """Take no more audio of a tag and say so once; a running track is closed."""
        track = owner.tracks.pop(tag, None) if owner else None
        track = track or self._inherited.pop(tag, None)
        if tag not in self.refused:
            if len(self.refused) < 2 * self._settings.max_tags:
                self.refused[tag] = code
            elif track is None:
                return
            self._tell(owner or self._heir, TagFailure(tag, code, message))
        if track and track.transcriber:
            self._keep(self._abort(track, track.transcriber), track)

    def audience(self, track: LiveTrack) -> Attachment | None:
        """Who hears what a track says; None while nobody is there."""
        return track.owner or self._heir

    def deliver(self, track: LiveTrack, transcript: Transcript) -> None:
        """Map a transcript to the session clock and hand it to its client at once."""
        timeline = track.audio.timeline
        line = SpokenLine(
            tag=track.tag,
            transcript=transcript,
            start_ms=timeline.map_ms(transcript.start_ms),
            end_ms=timeline.map_ms(transcript.end_ms),
        )
        target = self.audience(track)
        was_open = target is not None and target.outlet.is_open
        sent = False
        if target is not None and was_open:
            sent = target.outlet.transcript(line)
            if transcript.is_final and not (sent or target.outlet.is_open):
                self._wait(line)  # its outbox was full, which closed it
        elif self._newest is not None and self._newest.record(line):
            self._wait(line)
        self._host.delivered(track, transcript, sent=sent)
        if not transcript.is_final:
            self.interims += 1
            return
        self.finals += 1
        if self._context:
            self._context.add(track, participant_id(track.tag), transcript.text)

    def _tell(self, target: Attachment | None, failure: TagFailure) -> None:
        if target is not None and target.outlet.is_open:
            target.outlet.tag_failed(failure)
        else:
            self._wait(failure)

    def _wait(self, line: SpokenLine | TagFailure) -> None:
        if self._ended or not self.resumable:
            return
        self.missed.append(line)
        if len(self.missed) > self._settings.missed_finals:
            self.missed.popleft()
            self.missed_dropped += 1

    # The end

    async def finish_of(self, attachment: Attachment, deadline_s: float) -> None:
        """Flush the tracks of a connection and await their last finals."""
        self._ended = self.is_over
        self._finish_tracks(attachment.tracks, deadline_s)
        if self.attachments == [attachment]:
            self._finish_tracks(self._inherited, deadline_s)
        await self._endings_done()

    async def finish(self, deadline_s: float) -> None:
        """Flush every track and wait for its last finals, at most ``deadline_s`` seconds.

        Cancelling it stops the waiting, not the flushing. Tracks that open meanwhile go on.
        """
        for attachment in self.attachments:
            self._finish_tracks(attachment.tracks, deadline_s)
        self._finish_tracks(self._inherited, deadline_s)
        await self._endings_done()

    async def abort(self) -> None:
        """End at once what ``finish`` or a refusal still waits for; no transcript follows."""
        if self._context:
            self._context.stop()
        endings = dict(self._endings)
        if endings:
            transcribers = [transcriber for transcriber in endings.values() if transcriber]
            await asyncio.gather(*(transcriber.abort() for transcriber in transcribers))
            await asyncio.wait(endings)

    def close(self) -> None:
        """Nothing of it runs any more: log what was counted."""
        if self._context:
            self._context.stop()
        if self.missed:
            self.repeats.note("a client did not come back for its finals", finals=len(self.missed))
        if self.missed_dropped:
            self.repeats.note("too many finals waited for a client", dropped=self.missed_dropped)
        self.repeats.summarize()

    def _tracks(self) -> list[LiveTrack]:
        owned = [track for each in self.attachments for track in each.tracks.values()]
        return [*owned, *self._inherited.values()]

    def _finish_tracks(self, tracks: dict[str, LiveTrack], deadline_s: float) -> None:
        while tracks:
            _, track = tracks.popitem()
            self._keep(self._finish(track, deadline_s), track)

    async def _endings_done(self) -> None:
        if self._endings:
            await asyncio.wait(self._endings)

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
        # Its transcriber holds the track: together they would wait for the garbage collector,
        # which comes after hundreds of tracks.
        track.transcriber = None

    def _keep(self, ending: Coroutine[None, None, None], track: LiveTrack) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._endings[task] = track.transcriber
        task.add_done_callback(self._endings.pop)
