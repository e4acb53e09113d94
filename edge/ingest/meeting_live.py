"""A role's live recognizer, fed with what is stored: by one socket at a time, the newest.

Comes in: chunks that are in the object store. Goes out: finals in the session's log, on the
meeting's clock; the steps that follow them. Acks never wait for it: what it has not room for is
read back from the object store.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable
from functools import partial

import msgspec

from edge.audio.pcm import PcmFormat
from edge.errors import ObjectError, ObjectMissing, StoreError
from edge.logs import Repeats, get_logger
from edge.meeting.clock import Arrivals, TrackClock
from edge.meeting.desk import Desk
from edge.meeting.keys import chunk_key
from edge.meeting.meetings import Meetings
from edge.meeting.records import CHUNK_MS, RATE_HZ, RecognizerState, Utterance
from edge.meeting.view import utterance
from edge.session.attachment import Attachment
from edge.session.entries import FinalEntry
from edge.session.interface import (
    Measured,
    SessionHost,
    SessionRequest,
    SpokenLine,
    TagFailure,
    Transcript,
)
from edge.session.live_track import LiveTrack
from edge.transport.interface import Close

FORMAT = PcmFormat(rate_hz=RATE_HZ, channels=1)
PIECE_MS = 100
PIECE_BYTES = RATE_HZ * 2 * PIECE_MS // 1000
TICKS_PER_MS = 48
PATIENCE_MS = 2 * CHUNK_MS
"""A chunk comes when its second is over, and may come late: that pause is no silence."""
KEPT_CHUNKS = 10
"""Chunks kept for the recognizer; older ones are read back when it gets to them."""
MOST_BACK = 120
"""Chunks before the newest that a recognizer which begins anew goes back, if no final covers
them."""
FED_WITHIN_S = 5.0
STORED_WITHIN_S = 5.0
SETTLED_WITHIN_S = 5.0
LOOK_S = 0.05
AGAIN_S = 1.0
"""Between two attempts to read a chunk back."""

_log = get_logger("edge.ingest.meeting")

Told = Callable[[SpokenLine, Utterance | None], bool]
"""Passes on what was said, a final with its utterance; whether the client got it."""


class LiveTerms(msgspec.Struct):
    """What lives as long as a role's tracks."""

    clocks: dict[LiveTrack, TrackClock] = {}
    arrivals: Arrivals = msgspec.field(default_factory=Arrivals)
    next_seq: int = 0
    """The chunk to feed next; 0 while that is not known."""
    model: str = ""


class LiveRole:
    """One socket's; made when the socket sends, ended with it."""

    def __init__(
        self,
        host: SessionHost,
        meetings: Meetings,
        desk: Desk,
        provider: str,
        told: Told,
        use_dispatcher: bool | None = None,
    ) -> None:
        self._host = host
        self._meetings = meetings
        self._desk = desk
        self._provider = provider
        self._told = told
        self._use_dispatcher = use_dispatcher
        self._attachment: Attachment | None = None
        self._terms = LiveTerms()
        self._is_new = True
        """Whether a recognizer that was refused before is asked once more."""
        self._skip_ms = 0
        """How much of the chunk to feed next is covered by a final."""
        self._kept: dict[int, bytes] = {}
        self._newest = 0
        """The last chunk that is stored."""
        self._nudged = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._feeding: asyncio.Task[None] | None = None
        self._repeats = Repeats(_log)

    @property
    def sent_seq(self) -> int:
        """The last chunk that the recognizer has got."""
        return max(0, self._terms.next_seq - 1)

    def begin(self) -> str | None:
        """Take the role over from whoever fed it; why that is impossible."""
        session, role = self._desk.session, self._desk.role
        terms = LiveTerms()
        request = SessionRequest(
            session_id=session,
            speaker=role,
            provider=self._provider or None,
            use_dispatcher=self._use_dispatcher,
            terms=terms,
            measure=partial(_measured, terms),
        )
        attachment = self._host.attach(request, self)
        if attachment is None:
            return "this worker takes no more sessions"
        in_force = attachment.request.terms
        self._terms = in_force if isinstance(in_force, LiveTerms) else terms
        self._terms.model = self._meetings.recognition(self._provider).model
        self._attachment = attachment
        attachment.catch_up()
        self._state("connecting")
        self._idle.clear()
        self._feeding = asyncio.get_running_loop().create_task(self._feed())
        return None

    def stored(self, seq: int, pcm: bytes, arrived_s: float) -> None:
        """A chunk is in the object store."""
        if self._attachment is None:
            return
        self._terms.arrivals.add(seq, arrived_s)
        self._newest = max(self._newest, seq)
        if seq >= self._terms.next_seq and len(self._kept) < KEPT_CHUNKS:
            self._kept[seq] = pcm
        self._idle.clear()
        self._nudged.set()

    async def fed(self) -> None:
        """Return when all that was stored by now is in the track; a few seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FED_WITHIN_S):
                await self._idle.wait()

    async def written(self) -> None:
        """Return when it is written how recognition fares, and who spoke; a few seconds at most."""
        session, role = self._desk.session, self._desk.role
        await self._meetings.progress.written(session, role)
        await self._meetings.settled(session)

    async def finish(self) -> None:
        """The client has ended its stream: await the last finals, a bounded time."""
        await self.fed()
        if self._attachment is not None:
            attachment = self._attachment
            await attachment.finish(self._host.settings.finish_deadline_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STORED_WITHIN_S):
                    await attachment.stored()

    async def end(self, close: Close, *, left: bool) -> None:
        """The socket has gone; ``left``: for good, so that nobody comes back for it."""
        attachment = self._attachment
        if attachment is None:
            return
        if left:
            await self.fed()
        self._stop()
        if self._attachment is attachment:
            self._attachment = None
            attachment.ended = attachment.ended or left
            self._host.release(attachment, close)
            self._state("disconnected")

    # What the session calls

    @property
    def is_open(self) -> bool:
        """Whether it stands for a socket."""
        return self._attachment is not None

    def transcript(self, line: SpokenLine) -> bool:
        """Something was said."""
        if not line.transcript.is_final:
            return self._told(line, None)
        if not line.transcript.text.strip():
            return True
        self._told(line, self._heard(line))
        return True

    def record(self, line: SpokenLine) -> bool:
        """Something was said while the socket was away: the log has it, REST tells it."""
        if line.transcript.is_final and line.transcript.text.strip():
            self._heard(line)
        return False

    def missed(self, line: SpokenLine) -> bool:
        """Nothing is owed to a socket: what was said is asked for."""
        return True

    def tag_failed(self, failure: TagFailure) -> None:
        """There is no recognizer, or no room for one; chunks are stored all the same."""
        self._repeats.note(f"a meeting is not recognized: {failure.code}", reason=failure.message)
        self._state("error", failure.message)

    def superseded(self) -> None:
        """A newer socket feeds the role; this one's chunks are stored and acked."""
        self._stop()
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            self._host.release(attachment, Close(4009, "", by_peer=False))

    def deleted(self) -> None:
        """The session was deleted."""
        self.superseded()

    def command(self, op: str, body: bytes) -> bytes | None:
        """Commands of other clients are for the session's own protocol."""
        return None

    # Feeding

    def _stop(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()
            self._feeding = None
        self._idle.set()
        self._kept.clear()
        self._repeats.summarize()

    async def _feed(self) -> None:
        try:
            await self._find_place()
            while True:
                await self._nudged.wait()
                self._nudged.clear()
                while self._terms.next_seq <= self._newest:
                    await self._feed_next()
                self._idle.set()
        except Exception as error:
            _log.error("a meeting could not be fed to its recognizer", exc_info=error)
        finally:
            self._idle.set()

    async def _find_place(self) -> None:
        """Where to begin: after the last final, or where the tracks there are have come to."""
        if not self._terms.next_seq:
            await self._look_back()
        self._newest = max(self._newest, self._desk.ingest.last_seq)
        self._nudged.set()

    async def _look_back(self) -> None:
        session, role = self._desk.session, self._desk.role
        if self._attachment is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLED_WITHIN_S):
                    await self._attachment.settled()
        ingest = self._desk.ingest
        try:
            view = await self._meetings.views.of(session)
            covered_ms = max((each.end_ms for each in view.raw(role)), default=0)
        except StoreError as error:
            self._repeats.note("what was said before is not known", reason=str(error))
            covered_ms = ingest.sent_seq * CHUNK_MS
        covered, self._skip_ms = divmod(covered_ms, CHUNK_MS)
        if covered < ingest.last_seq - MOST_BACK:
            covered, self._skip_ms = ingest.last_seq - MOST_BACK, 0
        self._terms.next_seq = covered + 1
        self._kept = {seq: pcm for seq, pcm in self._kept.items() if seq > covered}

    async def _feed_next(self) -> None:
        seq = self._terms.next_seq
        ingest = self._desk.ingest
        pcm = self._kept.pop(seq, None)
        if pcm is None:
            if not ingest.has(seq):
                runs = (last for first, last in ingest.missing if first <= seq <= last)
                self._terms.next_seq = next(runs, seq) + 1
                self._skip_ms = 0
                return
            pcm = await self._read_back(seq)
        await self._room()
        self._terms.next_seq = seq + 1
        if pcm:
            self._play(seq, pcm)

    async def _read_back(self, seq: int) -> bytes:
        key = chunk_key(self._desk.session, self._desk.role, seq)
        while True:
            try:
                return await self._meetings.objects.get(key)
            except ObjectMissing:
                return b""
            except ObjectError as error:
                self._repeats.note("a chunk cannot be read back yet", reason=str(error))
            await asyncio.sleep(AGAIN_S * random.uniform(0.5, 1.5))

    async def _room(self) -> None:
        """Wait while the recognizer has enough to do."""
        while (attachment := self._attachment) is not None:
            track = attachment.tracks.get(self._desk.role)
            if track is None or track.transcriber is None or track.audio.crowding < 1.0:
                return
            track.audio.excuse(time.monotonic())
            await asyncio.sleep(LOOK_S)

    def _play(self, seq: int, pcm: bytes) -> None:
        attachment, role = self._attachment, self._desk.role
        if attachment is None:
            return
        track = attachment.tracks.get(role)
        if track is None:
            if role in attachment.session.refused and not self._is_new:
                return
            attachment.restart(role, FORMAT)
            track = attachment.tracks.get(role)
            if track is None:
                return  # refused, and told so
            track.audio.expect(PATIENCE_MS)
        self._is_new = False
        skip_ms, self._skip_ms = self._skip_ms, 0
        pcm = pcm[skip_ms * PIECE_BYTES // PIECE_MS :]
        clock = self._clock(track)
        at_ms, now_s = (seq - 1) * CHUNK_MS + skip_ms, time.monotonic()
        for at in range(0, len(pcm), PIECE_BYTES):
            piece = pcm[at : at + PIECE_BYTES]
            try:
                track.packet(None, at_ms * TICKS_PER_MS, piece, now_s)
            except Exception as error:
                track.broken(error)
                return
            clock.fed(track.audio.end_ms, at_ms + len(piece) * PIECE_MS / PIECE_BYTES)
            at_ms += PIECE_MS

    def _clock(self, track: LiveTrack) -> TrackClock:
        clocks = self._terms.clocks
        clock = clocks.get(track)
        if clock is None:
            for older in list(clocks)[:-1]:
                del clocks[older]
            clock = clocks[track] = TrackClock()
        return clock

    def _state(self, state: RecognizerState, error: str = "") -> None:
        self._meetings.progress.state(self._desk.session, self._desk.role, state, error)

    def _heard(self, line: SpokenLine) -> Utterance:
        said = self._utterance(line)
        self._meetings.progress.heard(said, self.sent_seq)
        self._meetings.said(said)
        return said

    def _utterance(self, line: SpokenLine) -> Utterance:
        said = line.transcript
        final = FinalEntry(
            speaker=self._desk.role,
            turn=line.turn,
            text=said.text,
            start_ms=round(line.start_ms),
            end_ms=round(line.end_ms),
            timestamp_unix_ms=said.timestamp_unix_ms,
            item_id=said.item_id,
            provider=said.provider,
            confidence=said.confidence,
            latency_ms=line.latency_ms,
            model=line.model,
        )
        return utterance(self._desk.session, self._desk.role, final, round(time.time() * 1000))


def _measured(terms: LiveTerms, track: LiveTrack, transcript: Transcript) -> Measured:
    """Where a transcript lies in the meeting, and how long after its last audio it came."""
    clock = terms.clocks.get(track)
    if clock is None:
        return Measured(transcript.start_ms, transcript.end_ms)
    end_ms = clock.meeting_ms(transcript.end_ms)
    start_ms = min(clock.meeting_ms(transcript.start_ms), end_ms)
    if not transcript.is_final:
        return Measured(start_ms, end_ms)
    last = max(1, math.ceil(end_ms / CHUNK_MS))
    latency_ms = terms.arrivals.latency_ms(last, time.monotonic())
    return Measured(start_ms, end_ms, latency_ms, terms.model or None)
