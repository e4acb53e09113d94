"""A live session: the tracks of its client connections and where their transcripts go.

A fault stays where it happens: a tag whose audio or recognizer fails is told so and closed, the
other tags of the session never notice. Connections come and go; the tracks stay.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from edge.asr.transcript import Transcript
from edge.audio.origin import MediaOrigin, SessionTime
from edge.audio.track import AudioTrack
from edge.logs import Repeats, get_logger
from edge.session.attachment import Attachment, Flushed
from edge.session.context import SharedContext
from edge.session.endings import Endings
from edge.session.interface import (
    Feeding,
    Measured,
    SessionOutlet,
    SessionRequest,
    SpokenLine,
    TagFailure,
    TrackHost,
    participant_id,
)
from edge.session.live_track import LiveTrack
from edge.session.missed import Missed
from edge.session.place import Place
from edge.session.settings import SessionSettings
from edge.session.store.commands import FLUSH
from edge.session.writer import TrackWriter
from edge.tracing import NO_SPAN, Span

_log = get_logger("edge.session.live")

SAMPLES_PER_MS = 48
"""Of the clock that media timestamps count."""
MOST_TAKEOVERS = 3
TAKEOVERS_WITHIN_S = 10.0
"""After so many takeovers within so long the clients are two: both stay."""


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
        gone: Callable[[LiveSession], None],
    ) -> None:
        """``gone`` is told when other workers have its tracks, or nobody may have them."""
        self.request = request
        self.opened_s = time.monotonic()
        self.span: Span = NO_SPAN
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
        self._missed = Missed(settings.missed_finals)
        self._ended = False
        """Whether its clients have ended it: nobody will ask for what they missed."""
        self._host = host
        self._gone = gone
        self._is_gone = False
        self._settings = settings
        self._place = Place(host.ledger, request, self, self._owe, resumable=self.resumable)
        self._inherited: dict[str, LiveTrack] = {}
        self._heir: Attachment | None = None
        """Who gets what inherited tracks say; None while the last client lost is awaited."""
        self._newest: SessionOutlet | None = None
        self._origin: MediaOrigin | None = None
        self._takeovers_s: deque[float] = deque(maxlen=MOST_TAKEOVERS)
        self._endings = Endings(host)
        size = settings.broadcast_transcripts_max_size if settings.broadcast_transcripts else 0
        self._context = SharedContext(size, self._tracks) if size else None

    @property
    def name(self) -> str:
        """Its name in the store; one of the gateway's making where the client gave none."""
        return self._place.session

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
        if self._missed.tell(attachment.outlet, self._host.caught_up):
            self._place.told()

    def give_up(self) -> None:
        """A client did not go on with all its tracks in time: end those it left."""
        self._heir = self.attachments[-1]
        self.catch_up(self._heir)
        self._endings.finish_all(self._inherited, self._settings.finish_deadline_s)

    def _joins(self, now_s: float) -> bool:
        if self.request.speaker is not None:
            return False
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
                self._endings.finish(older, self._settings.finish_deadline_s)
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
        quota = self.request.quota
        if quota is not None and (problem := quota.problem()):
            self.refuse(attachment, tag, "quota", problem)
            return None
        track = LiveTrack(self, attachment, tag)
        transcriber = self._host.open_track(track, self.request)
        if transcriber is None:
            track.writer.finish()
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
        if track:
            self._endings.abort(track)

    def audience(self, track: LiveTrack) -> Attachment | None:
        """Who hears what a track says; None while nobody is there."""
        return track.owner or self._heir

    def deliver(self, track: LiveTrack, transcript: Transcript) -> None:
        """Map a transcript to the session clock and hand it to its client at once."""
        measured = self._measure(track, transcript)
        line = SpokenLine(
            tag=track.tag,
            transcript=transcript,
            start_ms=measured.start_ms,
            end_ms=measured.end_ms,
            turn=track.writer.turn_of(transcript.item_id),
            latency_ms=measured.latency_ms,
            model=measured.model,
        )
        target = self.audience(track)
        was_open = target is not None and target.outlet.is_open
        sent = is_owed = False
        if target is not None and was_open:
            sent = target.outlet.transcript(line)
            # A full outbox closes its connection.
            is_owed = transcript.is_final and not (sent or target.outlet.is_open)
        elif self._newest is not None:
            is_owed = self._newest.record(line)
        is_owed = is_owed and self.resumable and not self._ended
        if is_owed and not self._is_gone:
            self._missed.keep(line)
        self._host.delivered(track, transcript, sent=sent)
        if not transcript.is_final:
            self.interims += 1
            track.writer.interim(line)
            return
        self.finals += 1
        covers = self.request.covers
        audio_seq = covers(track.tag, transcript.end_ms) if covers else None
        track.writer.final(line, sent=not is_owed, audio_seq=audio_seq)
        if self._context:
            self._context.add(track, participant_id(track.tag), transcript.text)

    def _measure(self, track: LiveTrack, transcript: Transcript) -> Measured:
        if self.request.measure is not None:
            return self.request.measure(track, transcript)
        map_ms, session_ms = track.audio.timeline.map_ms, self._place.session_ms
        return Measured(
            session_ms(map_ms(transcript.start_ms)), session_ms(map_ms(transcript.end_ms))
        )

    def _tell(self, target: Attachment | None, failure: TagFailure) -> None:
        if target is not None and target.outlet.is_open:
            target.outlet.tag_failed(failure)
        elif self.resumable and not (self._ended or self._is_gone):
            self._missed.keep(failure)

    # Its place among other workers' clients

    def writer_for(self, tag: str) -> TrackWriter:
        """The way of a tag's lines into the session's log."""
        return self._place.write(tag, {track.writer.track for track in self._tracks()})

    async def stored(self) -> None:
        """Wait until all that its tracks said is in the log."""
        await self._place.flushed()

    async def settled(self) -> None:
        """Wait until its client's place is taken over from whoever had it."""
        await self._place.claim.ready.wait()

    def superseded(self) -> None:
        """A newer client speaks for the same tracks, by way of another worker."""
        for attachment in self._leave():
            attachment.outlet.superseded()

    def deleted(self) -> None:
        """The session was deleted."""
        for attachment in self._leave():
            attachment.outlet.deleted()

    async def drain(self) -> None:
        """Let a newer client on another worker have the tracks, once all that was said is told."""
        self.superseded()
        await self.finish(self._settings.finish_deadline_s)
        await self._place.flushed()

    async def command(self, op: str, body: bytes) -> bytes:
        """What a client of another worker asks of these tracks."""
        if op == FLUSH:
            return await self._flush()
        for attachment in reversed(self.attachments):
            answer = attachment.outlet.command(op, body)
            if answer is not None:
                return answer
        return b"nobody is there for it"

    async def _flush(self) -> bytes:
        """End all tracks; those of connections that go on open again with the next audio."""
        outlets = [attachment.outlet for attachment in self.attachments]
        if not outlets and self._newest is not None:
            outlets = [self._newest]
        feeding = [outlet for outlet in outlets if isinstance(outlet, Feeding)]
        await asyncio.gather(*(outlet.fed() for outlet in feeding))
        await self.finish(self._settings.finish_deadline_s)
        await self._place.flushed()
        await asyncio.gather(*(outlet.written() for outlet in feeding))
        return b""

    def _leave(self) -> list[Attachment]:
        if self._is_gone:
            return []
        self._is_gone = True
        attachments = list(self.attachments)
        for attachment in attachments:
            self._bequeath(attachment)
        self._gone(self)
        self.attachments.clear()
        return attachments

    def _owe(self, lines: list[SpokenLine]) -> None:
        """Finals that another worker could not tell the client."""
        self._missed.keep_first(lines)
        if self.attachments:
            self.catch_up(self.attachments[-1])

    # The end

    async def finish_of(self, attachment: Attachment, deadline_s: float) -> None:
        """Flush the tracks of a connection and await their last finals."""
        self._ended = self.is_over
        self._endings.finish_all(attachment.tracks, deadline_s)
        if self.attachments == [attachment]:
            self._endings.finish_all(self._inherited, deadline_s)
        await self._endings.done()

    def flush_of(self, attachment: Attachment, deadline_s: float) -> Flushed:
        """Flush the tracks of a connection that goes on; call the answer to await their finals."""
        self._endings.finish_all(attachment.tracks, deadline_s)
        return self._endings.done

    def discard_of(self, attachment: Attachment) -> None:
        """End the tracks of a connection that goes on; what has no final yet gets none."""
        while attachment.tracks:
            self._endings.abort(attachment.tracks.popitem()[1])

    def client_ms(self, attachment: Attachment, session_ms: float) -> float:
        """A time of the session's clock on that of a connection's timestamps."""
        return self._place.track_ms(session_ms) - attachment.origin.known / SAMPLES_PER_MS

    async def finish(self, deadline_s: float) -> None:
        """Flush every track and wait for its last finals, at most ``deadline_s`` seconds.

        Cancelling it stops the waiting, not the flushing. Tracks that open meanwhile go on.
        """
        for attachment in self.attachments:
            self._endings.finish_all(attachment.tracks, deadline_s)
        self._endings.finish_all(self._inherited, deadline_s)
        await self._endings.done()

    async def abort(self) -> None:
        """End at once what ``finish`` or a refusal still waits for; no transcript follows."""
        if self._context:
            self._context.stop()
        await self._endings.abort_all()

    def close(self) -> None:
        """Nothing of it runs any more: log what was counted."""
        self._place.leave()
        if self._context:
            self._context.stop()
        self._missed.note(self.repeats)
        self.repeats.summarize()

    def _tracks(self) -> list[LiveTrack]:
        owned = [track for each in self.attachments for track in each.tracks.values()]
        return [*owned, *self._inherited.values()]
