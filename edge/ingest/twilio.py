"""Twilio Media Streams: the two sides of a telephone call as two tracks.

Twilio connects to ``/twilio`` and sends mu-law samples at 8 kHz, base64 in JSON, with their times.
Nothing is sent back. See docs/front-doors.md. Source: Twilio, Media Streams, WebSocket messages.
"""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from edge.ingest.counts import IngestCounts
from edge.ingest.door import CLOSES, Caller, Crowd, full
from edge.ingest.g711 import from_mulaw
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.listen_audio import CLOCK_HZ
from edge.ingest.voice import TICKS_PER_MS, SampleVoice
from edge.ingest.wav_header import SampleForm
from edge.session.interface import SessionHost, SessionRequest, SpokenLine, TagFailure
from edge.session.live_track import LiveTrack
from edge.session.names import name_problem
from edge.transport.interface import Limits

PATH = "/twilio"
MAX_MESSAGE_BYTES = 64 * 1024
START_WITHIN_S = 10.0
IDLE_S = 60.0
"""Twilio sends audio all the time, silence too."""
RATE_HZ = 8000
FORM = SampleForm("mulaw", RATE_HZ)
TOLERANCE_MS = 40
"""Times that are off by less are the jitter of whoever stamped them: samples are counted."""
MOST_PARAMETERS = 64

Side = Literal["inbound", "outbound"]


class MediaFormat(msgspec.Struct, frozen=True, rename="camel"):
    """How samples are written: there is but one way."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = RATE_HZ
    channels: int = 1


class StartDetails(msgspec.Struct, frozen=True, rename="camel"):
    """Which call it is, and what the operator's TwiML says of it."""

    stream_sid: str = ""
    call_sid: str = ""
    tracks: tuple[str, ...] = ()
    media_format: MediaFormat = MediaFormat()
    custom_parameters: dict[str, str] = {}


class MediaDetails(msgspec.Struct, frozen=True):
    """Samples of one side."""

    payload: bytes
    track: Side = "inbound"
    timestamp: int | str | None = None
    """Milliseconds since the stream began."""


class Connected(msgspec.Struct, frozen=True, tag="connected", tag_field="event"):
    """Says which protocol follows."""

    protocol: str = "Call"


class Start(msgspec.Struct, frozen=True, tag="start", tag_field="event"):
    """The stream begins."""

    start: StartDetails


class Media(msgspec.Struct, frozen=True, tag="media", tag_field="event"):
    """Audio."""

    media: MediaDetails


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="event"):
    """The stream or the call has ended."""


class Mark(msgspec.Struct, frozen=True, tag="mark", tag_field="event"):
    """Something that was played to the caller has ended; nothing is played here."""


class Digit(msgspec.Struct, frozen=True, tag="dtmf", tag_field="event"):
    """A key was pressed."""


Event = Connected | Start | Media | Stop | Mark | Digit
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class TwilioProtocol:
    """Answers upgrades of ``/twilio``."""

    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES)
    subprotocol: str | None = None

    def __init__(self, counts: IngestCounts) -> None:
        self._counts = counts
        self._crowd: Crowd = set()

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether it is the path."""
        return request.path == PATH

    def accept(self, request: UpgradeRequest, host: SessionHost) -> TwilioReceiver | Refusal:
        """Which call it is, is known later: the URL of a stream has no query."""
        refusal = full(host, self._crowd, None, None)
        return refusal or TwilioReceiver(host, self._counts, self._crowd)


class _Line(SampleVoice):
    """One side of a call: its samples are counted, its times say where some are missing."""

    def __init__(self, side: Side) -> None:
        super().__init__(side, FORM)
        self._end = 0

    def hear(self, track: LiveTrack, at_ms: int | None, codes: bytes, now_s: float) -> None:
        """Samples with the time of their beginning, in milliseconds of the stream."""
        if at_ms is not None and abs(at_ms * TICKS_PER_MS - self._end) > (
            TOLERANCE_MS * TICKS_PER_MS
        ):
            self._end = at_ms * TICKS_PER_MS
        track.packet(None, self._end, from_mulaw(codes), now_s)
        self._end += len(codes) * CLOCK_HZ // RATE_HZ


class TwilioReceiver(Caller):
    """One stream of a call."""

    def __init__(self, host: SessionHost, counts: IngestCounts, crowd: Crowd) -> None:
        super().__init__(host, counts, crowd)
        self._lines: dict[Side, _Line] = {
            "inbound": _Line("inbound"),
            "outbound": _Line("outbound"),
        }

    def begin(self) -> None:
        """Twilio speaks first."""
        self.watch(START_WITHIN_S)

    def take(self, data: bytes, is_text: bool) -> None:
        """One event; what is none costs nothing but itself."""
        try:
            event = _decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
            self._counts.bad_events += 1
            self._repeats.note("bad event", reason=str(problem))
            return
        match event:
            case Media(media):
                self._hear(media)
            case Start(start):
                self._start(start)
            case Stop():
                if self._takes:
                    self._takes = False
                    self.spawn(self._end())
            case _:
                self._counts.ignored_events += 1

    def transcript(self, line: SpokenLine) -> bool:
        """Twilio is told nothing; followers of the session and its log are."""
        return False

    def fail(self, failure: TagFailure) -> None:
        """Hang up: nothing more is heard."""
        self.close(CLOSES.get(failure.code, 1011), failure.message)

    def _start(self, start: StartDetails) -> None:
        form, asked = start.media_format, start.custom_parameters
        if self._attachment is not None:
            self._counts.ignored_events += 1
            return
        if (form.encoding, form.sample_rate, form.channels) != ("audio/x-mulaw", RATE_HZ, 1):
            self.close(1008, "Media Streams are audio/x-mulaw at 8000 Hz with one channel")
            return
        session_id = asked.get("session") or start.call_sid
        problem = name_problem(session_id) or self._provider_problem(asked.get("provider"))
        if problem or len(asked) > MOST_PARAMETERS:
            self.close(1008, f"The stream cannot be taken: {problem or 'too many parameters'}")
            return
        request = SessionRequest(
            session_id=session_id,
            provider=self._provider(asked.get("provider")),
            language=asked.get("language") or None,
        )
        if self.attach(request, is_named=True):
            self.watch(IDLE_S)

    def _provider(self, name: str | None) -> str | None:
        return self._host.offer.aliases.get(name.lower(), name.lower()) if name else None

    def _provider_problem(self, name: str | None) -> str | None:
        able = self._host.offer.available_providers
        if not name or self._provider(name) in able:
            return None
        return f"provider is one of {', '.join(able)}"

    def _hear(self, media: MediaDetails) -> None:
        attachment, line = self._attachment, self._lines[media.track]
        track = line.track(attachment) if self._takes and attachment else None
        if track is None:
            self._counts.refused_packets += 1
            return
        if not media.payload:
            self._counts.empty_payloads += 1
            return
        self._counts.audio_packets += 1
        self._counts.audio_bytes += len(media.payload)
        now_s = time.monotonic()
        brought_ms = len(media.payload) * 1000 / RATE_HZ
        try:
            line.hear(track, _ms(media.timestamp), media.payload, now_s)
        except Exception as error:
            track.broken(error)
            return
        self.spend(track, brought_ms, now_s)

    async def _end(self) -> None:
        await self.finish()
        self.close(1000, "The stream has ended")


def _ms(timestamp: int | str | None) -> int | None:
    """A time as Twilio writes it: digits in a string; None for what is none."""
    if isinstance(timestamp, str):
        timestamp = int(timestamp) if timestamp.isdecimal() and len(timestamp) < 16 else None
    return timestamp if timestamp is not None and 0 <= timestamp < 10**15 else None
