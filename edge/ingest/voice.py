"""Audio of other systems' clients on its way to a track: samples, packets, containers.

Comes in: bytes as clients send them. Goes out: packets of one tag with their times, and the way
back from a time of the session to one of what the client has sent. Only the doors call it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from _native.opus import InvalidPacket, packet_samples
from edge.audio.container import Container
from edge.audio.pcm import PcmFormat
from edge.ingest.g711 import from_alaw, from_mulaw
from edge.ingest.listen_audio import CHUNK_MS, CLOCK_HZ, SampleClock
from edge.ingest.wav_header import SampleEncoding, SampleForm
from edge.session.attachment import Attachment
from edge.session.live_track import LiveTrack

TICKS_PER_MS = CLOCK_HZ // 1000
PIECE_BYTES = 16 * 1024
"""Of a container at once: some seconds of speech."""
PAUSES_KEPT = 64

_EXPANDERS: dict[SampleEncoding, Callable[[bytes], bytes]] = {
    "mulaw": from_mulaw,
    "alaw": from_alaw,
}


def expanded(form: SampleForm, data: bytes) -> bytes:
    """Samples as 16-bit ones."""
    expand = _EXPANDERS.get(form.encoding)
    return data if expand is None else expand(data)


class StreamClock(SampleClock):
    """Counts samples, pauses by the clock; knows what a time is worth without the pauses."""

    __slots__ = ("_pauses",)

    def __init__(self, rate_hz: int) -> None:
        super().__init__(rate_hz)
        self._pauses: deque[tuple[float, float]] = deque(maxlen=PAUSES_KEPT)
        """When audio went on, and how long all pauses were by then, in milliseconds."""

    def place(self, samples: int, now_s: float) -> int:
        """The media time of so many samples that came now."""
        before = self._end
        at = super().place(samples, now_s)
        if skipped := self._end - samples - before:
            paused_ms = self._pauses[-1][1] if self._pauses else 0.0
            self._pauses.append((at / TICKS_PER_MS, paused_ms + skipped * 1000 / self._rate_hz))
        return at

    def stream_ms(self, media_ms: float) -> float:
        """How much audio had been sent by a media time."""
        limit = media_ms
        for began_ms, paused_ms in reversed(self._pauses):
            if media_ms >= began_ms:
                return min(media_ms - paused_ms, limit)
            limit = began_ms - paused_ms
        return min(media_ms, limit)


class Voice(ABC):
    """One tag's audio over one connection."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.sent_ms = 0.0
        """Audio that the client has sent."""

    def track(self, attachment: Attachment) -> LiveTrack | None:
        """The tag's track, opened or taken over if need be; None while the tag is refused."""
        if self.tag not in attachment.tracks:
            self._open(attachment)
        return attachment.tracks.get(self.tag)

    def stream_ms(self, media_ms: float) -> float:
        """How much audio had been sent by a time of this connection's media clock."""
        return media_ms

    @abstractmethod
    def feed(self, track: LiveTrack, data: bytes, now_s: float) -> int:
        """Hand bytes on; returns how many packets they were. Raises ``UnusableContainer``."""

    @abstractmethod
    def _open(self, attachment: Attachment) -> None: ...


class SampleVoice(Voice):
    """Uncoded or G.711 samples in frames of any size; what a frame cuts off waits for its rest."""

    def __init__(self, tag: str, form: SampleForm) -> None:
        super().__init__(tag)
        self._form = form
        self._pcm = PcmFormat(rate_hz=form.rate_hz, channels=form.channels)
        self._clock = StreamClock(form.rate_hz)
        self._chunk_bytes = form.rate_hz * CHUNK_MS // 1000 * form.frame_bytes
        self._rest = b""

    def stream_ms(self, media_ms: float) -> float:
        """Without the pauses."""
        return self._clock.stream_ms(media_ms)

    def feed(self, track: LiveTrack, data: bytes, now_s: float) -> int:
        """Packets of 80 ms, and what is left."""
        data, frame_bytes = self._rest + data, self._form.frame_bytes
        whole = len(data) - len(data) % frame_bytes
        self._rest = data[whole:]
        for start in range(0, whole, self._chunk_bytes):
            piece = data[start : min(start + self._chunk_bytes, whole)]
            frames = len(piece) // frame_bytes
            at = self._clock.place(frames, now_s)
            self.sent_ms += frames * 1000 / self._form.rate_hz
            track.packet(None, at, expanded(self._form, piece), now_s)
        return -(-whole // self._chunk_bytes)

    def _open(self, attachment: Attachment) -> None:
        attachment.restart(self.tag, self._pcm)


class PacketVoice(Voice):
    """Bare Opus packets, one at a time."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self._end = 0

    def feed(self, track: LiveTrack, data: bytes, now_s: float) -> int:
        """One packet; a damaged one counts as none."""
        try:
            samples = packet_samples(data)
        except InvalidPacket:
            samples = 0
        track.packet(None, self._end, data, now_s)
        self._end += samples
        self.sent_ms = self._end / TICKS_PER_MS
        return 1

    def _open(self, attachment: Attachment) -> None:
        attachment.restart(self.tag)


class ContainerVoice(Voice):
    """Opus in Ogg or WebM, in pieces that may be cut anywhere."""

    def __init__(self, tag: str, container: Container) -> None:
        super().__init__(tag)
        self._container = container
        self._track: LiveTrack | None = None
        self._before_ms = 0.0
        """What earlier tracks were sent."""

    def feed(self, track: LiveTrack, data: bytes, now_s: float) -> int:
        """Pieces of some seconds."""
        if track is not self._track:
            self._track, self._before_ms = track, self.sent_ms
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            track.packet(None, round(self._before_ms * TICKS_PER_MS), piece, now_s)
        self.sent_ms = self._before_ms + track.audio.end_ms
        return -(-len(data) // PIECE_BYTES)

    def _open(self, attachment: Attachment) -> None:
        attachment.restart(self.tag, container=self._container)
