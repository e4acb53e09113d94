"""A speaker on a connection of ``edge.session.v1``: its audio in, its own words out at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from edge.audio.pcm import PcmFormat
from edge.ingest.counts import IngestCounts
from edge.ingest.listen_query import ListenQuery
from edge.ingest.session_audio import (
    SAMPLES_PER_MS,
    AudioFrame,
    BadAudio,
    SpeakerAudio,
    parse_audio,
    stream_of,
    track_name,
)
from edge.ingest.session_messages import Ack, Audio, Err, MuteData, PartMessage, encode
from edge.ingest.session_room import CROWDED_BYTES
from edge.ingest.throttle import Throttle
from edge.session.attachment import Attachment
from edge.session.interface import SessionHost, SessionRequest, SpokenLine, TagFailure
from edge.session.live_track import LiveTrack
from edge.transport.interface import Close, Socket

ACK_EVERY_S = 1.0
ACK_EVERY_FRAMES = 50
FAILURE_CLOSES = {"overloaded": 1013, "too_many_tags": 4029, "quota": 4029}
"""What ends a speaker's connection; whatever else does is 1011."""
OPENING_EVENTS = 10.0
EVENT_MS = 20.0

_mute = msgspec.json.Decoder(MuteData).decode


class Terms(msgspec.Struct, eq=False):
    """What a speaker's tracks were opened with; it outlives the connection."""

    audio: SpeakerAudio
    format: Audio
    is_settled: bool = True
    """False until it is known what another worker has stored; no audio is taken before."""


def speaker_request(
    query: ListenQuery, audio: SpeakerAudio, form: Audio, *, is_elsewhere: bool
) -> SessionRequest:
    """What a speaker asks of its session, with what has to outlive its connection.

    ``is_elsewhere``: its audio goes on that another worker has begun to take.
    """

    def covers(tag: str, end_ms: float) -> int | None:
        stream = stream_of(query.speaker, tag)
        return None if stream is None else audio.covered(stream, end_ms)

    return SessionRequest(
        session_id=query.session,
        speaker=query.speaker,
        provider=query.provider,
        language=query.language,
        use_dispatcher=query.use_dispatcher,
        terms=Terms(audio, form, is_settled=not is_elsewhere),
        covers=covers,
    )


def format_problem(audio: Audio) -> str | None:
    """Why audio of a hello cannot be taken."""
    return None if audio.encoding == "opus" else _pcm(audio).problem


def _pcm(audio: Audio) -> PcmFormat:
    return PcmFormat(rate_hz=audio.rate, channels=audio.channels)


class Speaking:
    """One connection's speaker: attached to its tracks from the welcome to the end.

    It is the outlet of the attachment. ``fail(code, err)`` says what is wrong and closes.
    """

    def __init__(
        self,
        socket: Socket,
        host: SessionHost,
        request: SessionRequest,
        counts: IngestCounts,
        throttle: Throttle,
        fail: Callable[[int, Err], None],
    ) -> None:
        assert isinstance(request.terms, Terms)
        self.request = request
        self._speaker = request.speaker or ""
        self._socket = socket
        self._host = host
        self._counts = counts
        self._fail = fail
        self._throttle = throttle
        self._terms = request.terms
        self._format = request.terms.format
        self._is_new_format = False
        self._attachment: Attachment | None = None
        self._fed: Attachment | None = None
        """Where audio goes; None while there is none and once another connection is there."""
        self._streams: set[int] = set()
        self._parts: dict[str, tuple[int, int]] = {}
        self._acked = 0
        self._is_welcome = False
        """Whether the client has its welcome: nothing is told before that."""
        self._acking: asyncio.TimerHandle | None = None

    @property
    def audio(self) -> SpeakerAudio:
        """What was taken of the speaker's audio."""
        return self._terms.audio

    def attach(self, *, goes_on: bool) -> bool:
        """Take the speaker's place, and its tracks as they are; False while the worker drains.

        ``goes_on``: the client goes on with the numbers of its audio.
        """
        attachment = self._host.attach(self.request, self)
        if attachment is None:
            return False
        self._attachment = self._fed = attachment
        if isinstance(attachment.request.terms, Terms):
            self._terms = attachment.request.terms
        self._is_new_format = self._terms.format != self._format
        self._terms.format = self._format
        if not goes_on:
            self.audio.begin()
            self._terms.is_settled = True
        self._acked = self.audio.acked
        return True

    @property
    def is_settled(self) -> bool:
        """Whether it is known what other workers have taken of its audio."""
        return self._terms.is_settled

    async def settled(self) -> None:
        """Wait until all that the speaker said over another worker is in the log."""
        if self._attachment is not None:
            await self._attachment.settled()

    def go_on_from(self, floors: dict[int, int]) -> None:
        """Audio up to these frames is in the log: it need not come again, and is not taken."""
        self.audio.begin(floors)
        self._terms.is_settled = True
        self._ack()

    def welcomed(self, acked: int) -> None:
        """The client has its welcome, with this ack."""
        self._is_welcome = True
        if self.audio.acked != acked:
            self._ack()

    def catch_up(self) -> None:
        """Tell of failures while no client was there; finals are in the log."""
        if self._attachment is not None:
            self._attachment.catch_up()

    def frame(self, data: bytes) -> None:
        """Take one binary message."""
        attachment = self._fed
        if attachment is None:
            return
        try:
            frame = parse_audio(data)
            is_new = self.audio.takes(frame)
        except BadAudio as problem:
            self._counts.bad_events += 1
            self._fail(1003, Err("bad_audio", str(problem), False))
            return
        self._owe_ack()
        now_s = time.monotonic()
        self._throttle.spend(1.0, now_s)
        if is_new and not self.audio.is_muted:
            self._play(attachment, frame, now_s)

    def command(self, op: str, body: bytes) -> bytes | None:
        """Do what was asked of this speaker's tracks; None when they are not here."""
        if self._fed is None:
            return None
        if op not in ("mute", "end_turn"):
            return b"a speaker can be muted, and its turn ended"
        if op == "mute":
            self.audio.is_muted = _mute(body).muted
        if op == "end_turn" or (op == "mute" and self.audio.is_muted):
            for track in self._fed.tracks.values():
                if track.transcriber:
                    track.transcriber.commit()
        return b""

    async def finish(self) -> None:
        """The client leaves: flush its tracks and wait until their last finals are stored."""
        if self._fed is not None:
            await self._fed.finish(self._host.settings.finish_deadline_s)
            await self._fed.stored()

    def close(self, close: Close) -> None:
        """The connection is over."""
        if self._acking is not None:
            self._acking.cancel()
            self._acking = None
        self._fed = None
        if self._attachment is not None:
            self._host.release(self._attachment, close)
            self._attachment = None

    # What its tracks say

    @property
    def is_open(self) -> bool:
        """Whether what is sent now can still reach the client."""
        return self._socket.is_open

    def superseded(self) -> None:
        """A newer connection speaks as this speaker: take nothing more, and say so."""
        self._fed = None
        self._socket.close(4009, "Superseded by a newer connection of this speaker")

    def deleted(self) -> None:
        """The session was deleted: take nothing more, and say so."""
        self._fed = None
        self._socket.close(4004, "The session was deleted")

    def transcript(self, line: SpokenLine) -> bool:
        """Send the speaker's own words at once; when they are final the log's ``ev`` follows."""
        is_final = line.transcript.is_final
        text = line.transcript.text
        turn, rev = self._parts.get(line.tag, (line.turn, 0))
        rev = rev + 1 if turn == line.turn else 1
        self._parts[line.tag] = (line.turn, rev)
        if not self._is_welcome:
            return False
        part = PartMessage(line.tag, line.turn, rev, text, len(text) if is_final else 0)
        if not is_final and self._socket.unsent_bytes >= CROWDED_BYTES:
            return False
        return self._socket.send_text(encode(part))

    def record(self, line: SpokenLine) -> bool:
        """Nothing waits here for a client that is away: the log keeps its finals."""
        return False

    def missed(self, line: SpokenLine) -> bool:
        """Never called: ``record`` keeps none."""
        return True

    def tag_failed(self, failure: TagFailure) -> None:
        """A track gets no more transcripts: the worker is full, a quota is used up, or a fault."""
        code = FAILURE_CLOSES.get(failure.code, 1011)
        if self._attachment is not None:
            # Who comes again gets a track anew, and sends again what no final covers.
            self._attachment.ended = True
        self._fail(code, Err(failure.code, failure.message, True))

    # Its audio

    def _play(self, attachment: Attachment, frame: AudioFrame, now_s: float) -> None:
        name = track_name(self._speaker, frame.stream)
        track = attachment.tracks.get(name)
        if track is None or frame.stream not in self._streams:
            track = self._open(attachment, name, frame.stream, now_s)
        if track is None:
            self._counts.refused_packets += 1
            return
        self._counts.audio_packets += 1
        self._counts.audio_bytes += len(frame.payload)
        audio = track.audio
        before_ms = audio.end_ms
        try:
            track.packet(None, frame.ms * SAMPLES_PER_MS, frame.payload, now_s)
        except Exception as error:
            track.broken(error)
            return
        self.audio.mark(frame, audio.end_ms)
        brought = (audio.end_ms - before_ms) / EVENT_MS
        if brought > 1.0:
            self._throttle.spend(brought - 1.0, now_s)
        if audio.crowding >= 1.0:
            self._throttle.wait_for((track,), now_s, attachment.tracks.values())

    def _open(
        self, attachment: Attachment, name: str, stream: int, now_s: float
    ) -> LiveTrack | None:
        track = attachment.track(name)
        if track is None:
            return None
        self._throttle.spend(OPENING_EVENTS, now_s)
        is_first = stream not in self._streams
        self._streams.add(stream)
        pcm = _pcm(self._format) if self._format.encoding == "pcm16" else None
        if (is_first and self._is_new_format) or (pcm and track.audio.source != "pcm"):
            attachment.restart(name, pcm)
        return attachment.tracks.get(name)

    def _owe_ack(self) -> None:
        if self.audio.acked - self._acked >= ACK_EVERY_FRAMES:
            self._ack()
        elif self._acking is None:
            self._acking = asyncio.get_running_loop().call_later(ACK_EVERY_S, self._ack)

    def _ack(self) -> None:
        if self._acking is not None:
            self._acking.cancel()
            self._acking = None
        if self._is_welcome:
            self._acked = self.audio.acked
            self._socket.send_text(encode(Ack(self._acked)))
