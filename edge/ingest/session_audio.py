"""Binary audio of ``edge.session.v1``: its header, its numbers, and which were taken already."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

import msgspec

from edge.session.store.interface import Entry

VERSION = 1
HEADER_BYTES = 12
MAX_SEQ = 0xFFFFFFFF
MAX_JUMP = 1_000_000
"""Frames that a client may leave out at once: more than 5 h of 20 ms are no gap but a fault."""
MAX_STREAMS = 16
MARKS = 4096
"""Frames remembered per stream, to say which of them a final covers."""
SAMPLES_PER_MS = 48


class _Covering(msgspec.Struct, frozen=True):
    """What of a final's body counts here."""

    audio_seq: int | None = None


_final = msgspec.json.Decoder(_Covering).decode
_header = struct.Struct(">BBHII")


class BadAudio(Exception):
    """A binary frame that is no audio; ``str()`` says why."""


class AudioFrame(msgspec.Struct, frozen=True, gc=False):
    """One frame: ``stream`` 0 is the speaker's own, ``ms`` the media time of its first sample."""

    stream: int
    seq: int
    ms: int
    payload: bytes


def parse_audio(data: bytes) -> AudioFrame:
    """Header: version u8 (1), flags u8 (0), stream u16, seq u32, ms u32; big-endian, then audio.

    Raises ``BadAudio``. Flags are for later versions: a set bit is refused, not guessed at.
    """
    if len(data) <= HEADER_BYTES:
        raise BadAudio(f"an audio frame has a header of {HEADER_BYTES} bytes and audio behind it")
    version, flags, stream, seq, ms = _header.unpack_from(data)
    if version != VERSION:
        raise BadAudio(f"the first byte of an audio frame is its version, {VERSION}")
    if flags:
        raise BadAudio("no flag of an audio frame is known: the second byte is 0")
    if stream >= MAX_STREAMS:
        raise BadAudio(f"streams are numbered from 0 to {MAX_STREAMS - 1}")
    if seq == 0:
        raise BadAudio("audio frames are numbered from 1")
    return AudioFrame(stream, seq, ms, data[HEADER_BYTES:])


def audio_frame(seq: int, ms: int, payload: bytes, stream: int = 0) -> bytes:
    """A frame as a client sends it."""
    return _header.pack(VERSION, 0, stream, seq, ms) + payload


def track_name(speaker: str, stream: int) -> str:
    """The name in the log of a speaker's stream."""
    return f"{speaker}/{stream}" if stream else speaker


def stream_of(speaker: str, track: str) -> int | None:
    """Which stream of a speaker a track is; None if it is another's."""
    if track == speaker:
        return 0
    name, _, number = track.rpartition("/")
    if name != speaker or not number.isdecimal() or not 0 < int(number) < MAX_STREAMS:
        return None
    return int(number)


class _Marks:
    """Where the frames of one stream end on its track's own clock."""

    __slots__ = ("_ends_ms", "_seqs", "floor")

    def __init__(self, floor: int) -> None:
        self._ends_ms: deque[float] = deque(maxlen=MARKS)
        self._seqs: deque[int] = deque(maxlen=MARKS)
        self.floor = floor

    def add(self, end_ms: float, seq: int) -> None:
        self._ends_ms.append(end_ms)
        self._seqs.append(seq)

    def covered(self, end_ms: float) -> int:
        """The last frame that ends by ``end_ms``; those before the marks are covered."""
        found = bisect_right(self._ends_ms, end_ms)
        return self._seqs[found - 1] if found else self.floor


class SpeakerAudio:
    """Which frames of a speaker were taken; it outlives connections, as the tracks do.

    ``seq`` counts all frames of a speaker, of whatever stream. Over one connection they come in
    order, so that a number left out will not come any more: the client has dropped that frame, and
    its time becomes silence. A number that is not above the last of its stream comes again after a
    reconnect and is not taken twice.
    """

    def __init__(self) -> None:
        self.acked = 0
        """The highest frame taken."""
        self.is_muted = False
        self.skipped = 0
        """Frames that were left out."""
        self.doubled = 0
        """Frames that came again."""
        self._marks: dict[int, _Marks] = {}
        self._last: dict[int, int] = {}

    def begin(self, floors: dict[int, int] | None = None) -> None:
        """Numbers start anew, or after ``floors``: what other workers have finished, by stream."""
        floors = floors or {}
        self._last = dict(floors)
        self._marks = {stream: _Marks(floor) for stream, floor in floors.items()}
        self.acked = min(floors.values(), default=0)

    def takes(self, frame: AudioFrame) -> bool:
        """Whether a frame is new; raises ``BadAudio`` for a number that cannot be right."""
        last = self._last.get(frame.stream, 0)
        if frame.seq <= last:
            self.doubled += 1
            return False
        if self._last and frame.seq > self.acked + MAX_JUMP:
            raise BadAudio(f"audio frame {frame.seq} does not follow frame {self.acked}")
        if self._last and frame.seq > self.acked + 1:
            self.skipped += frame.seq - self.acked - 1
        self._last[frame.stream] = frame.seq
        self.acked = max(self.acked, frame.seq)
        return True

    def mark(self, frame: AudioFrame, end_ms: float) -> None:
        """After a frame its stream's track ends at ``end_ms``."""
        marks = self._marks.get(frame.stream)
        if marks is None:
            marks = self._marks[frame.stream] = _Marks(0)
        marks.add(end_ms, frame.seq)

    def covered(self, stream: int, end_ms: float) -> int | None:
        """The last frame that a final which ends at ``end_ms`` of its track covers."""
        marks = self._marks.get(stream)
        return marks.covered(end_ms) if marks else None


def floors_of(speaker: str, entries: Iterable[Entry]) -> dict[int, int]:
    """The last frame of each of a speaker's streams that a final in the log covers."""
    floors: dict[int, int] = {}
    for entry in entries:
        stream = stream_of(speaker, entry.track) if entry.kind == "final" else None
        if stream is not None and (seq := _covered(entry.body)):
            floors[stream] = seq
    return floors


def _covered(body: bytes) -> int:
    try:
        return _final(body).audio_seq or 0
    except msgspec.MsgspecError:
        return 0
