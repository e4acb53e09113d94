"""Files of speech as the packets a media server would send: WAV is encoded, Opus is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from _native import ogg, webm
from _native.opus import InvalidPacket, packet_samples
from edge.demo.bridge import CLOCK_HZ, FRAME_MS, Line, encode_frames
from edge.demo.speech import BadRecording, Speech, read_wav

_LINE = Line(loss=0, late=0, dtx=False, audio_levels=False)
_PIECE_BYTES = 1 << 16
_LONGEST_S = 2 * 3600


class PacketSource(Protocol):
    """Speech to send."""

    @property
    def duration_s(self) -> float: ...

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Opus packets in order, each with its time in 48 kHz samples of the recording.

        Times may begin a few milliseconds before zero: what an encoder needs to start.
        """
        ...


class EncodedSpeech(msgspec.Struct, frozen=True):
    """PCM, encoded as it is asked for."""

    speech: Speech

    @property
    def duration_s(self) -> float:
        return self.speech.duration_s

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Packets of 20 ms; the last frame is filled up with silence."""
        for index, (payload, _) in enumerate(encode_frames(self.speech, _LINE)):
            yield index * FRAME_MS * CLOCK_HZ // 1000, payload


class OpusRecording(msgspec.Struct, frozen=True):
    """Opus out of a file, as it was there."""

    timed: list[tuple[int, bytes]]
    duration_s: float

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """The file's own packets and times."""
        return iter(self.timed)


def read_recording(path: Path | str) -> PacketSource:
    """Read a WAV, Ogg Opus or WebM file; what it is its first bytes say, not its name.

    Raises ``BadRecording`` for a file that can't be read or holds no such audio.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise BadRecording(f"{path} cannot be read: {error.strerror or error}") from None
    if head == b"OggS":
        return _read_opus(Path(path), ogg.Demuxer(), "an Ogg file with Opus")
    if head == b"\x1a\x45\xdf\xa3":
        return _read_opus(Path(path), webm.Demuxer(), "a WebM file with Opus")
    return EncodedSpeech(read_wav(path))


def _read_opus(path: Path, demuxer: ogg.Demuxer | webm.Demuxer, kind: str) -> OpusRecording:
    timed: list[tuple[int, bytes]] = []
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                timed += demuxer.feed(piece)
                if timed and timed[-1][0] > _LONGEST_S * CLOCK_HZ:
                    raise BadRecording(
                        f"{path} is longer than {_LONGEST_S // 3600} hours; split it"
                    )
    except OSError as error:
        raise BadRecording(f"{path} cannot be read: {error.strerror or error}") from None
    except (ogg.OggError, webm.WebmError) as error:
        raise BadRecording(
            f"{path} is not {kind} ({error}): ffmpeg -i {path} -ac 1 -c:a libopus out.ogg"
        ) from None
    if not timed:
        raise BadRecording(f"{path} holds no audio")
    at, packet = timed[-1]
    try:
        end = at + packet_samples(packet)
    except InvalidPacket:
        end = at
    return OpusRecording(timed, max(0, end) / CLOCK_HZ)
