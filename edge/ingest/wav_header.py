"""The header of a WAV file: what its samples are, and where they begin.

Source: Microsoft, Multimedia Programming Interface and Data Specifications 1.0, WAVE; for
``WAVE_FORMAT_EXTENSIBLE`` and the codes of G.711, ``mmreg.h``.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from edge.audio.pcm import PcmFormat

SampleEncoding = Literal["pcm16", "mulaw", "alaw"]
MOST_HEADER_BYTES = 64 * 1024
"""Chunks before the samples that are passed over; writers put titles and the like there."""
OPEN_END = 0xFFFFFFFF
"""What a writer that cannot go back says is the length of the samples; some say 0."""
_PCM, _ALAW, _MULAW, _EXTENSIBLE = 1, 6, 7, 0xFFFE
_WIDTHS: dict[int, tuple[SampleEncoding, int]] = {
    _PCM: ("pcm16", 16),
    _ALAW: ("alaw", 8),
    _MULAW: ("mulaw", 8),
}
_FORMAT = struct.Struct("<HHIIHH")
_CHUNK = struct.Struct("<4sI")


class BadWav(Exception):
    """It is no WAV file that can be heard; ``str()`` says why."""


class SampleForm(msgspec.Struct, frozen=True):
    """How samples are written."""

    encoding: SampleEncoding
    rate_hz: int
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """One sample of each channel."""
        return self.channels * (2 if self.encoding == "pcm16" else 1)

    @property
    def problem(self) -> str | None:
        """Why such samples cannot be taken, if so."""
        return PcmFormat(rate_hz=self.rate_hz, channels=self.channels).problem


class WavHeader(msgspec.Struct, frozen=True):
    """A header that was read whole."""

    form: SampleForm
    offset: int
    """Where the samples begin."""
    size: int | None
    """How many bytes of samples there are; None: up to the end."""


def is_wav(data: bytes | memoryview) -> bool:
    """Whether it begins like a WAV file."""
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


def read_header(data: bytes | memoryview) -> WavHeader | None:
    """The header at the beginning of ``data``; None while more of it is needed.

    Raises ``BadWav``.
    """
    if len(data) < 12:
        return None
    if not is_wav(data):
        raise BadWav("it does not begin with RIFF and WAVE")
    at, form = 12, None
    while len(data) >= at + _CHUNK.size:
        name, size = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        if name == b"data":
            if form is None:
                raise BadWav("its samples come before their format")
            return WavHeader(form, at, None if size in (0, OPEN_END) else size)
        if name == b"fmt ":
            if size < _FORMAT.size or size > MOST_HEADER_BYTES:
                raise BadWav(f"its format has {size} bytes")
            if len(data) < at + size:
                break
            form = _form(data[at : at + size])
        at += size + size % 2
        if at > MOST_HEADER_BYTES:
            raise BadWav(f"its samples do not begin within {MOST_HEADER_BYTES} bytes")
    return None


def _form(chunk: bytes | memoryview) -> SampleForm:
    code, channels, rate_hz, _, _, bits = _FORMAT.unpack_from(chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        code = int.from_bytes(chunk[24:26], "little")
    encoding, width = _WIDTHS.get(code, (None, 0))
    if encoding is None or bits != width:
        raise BadWav(
            f"its samples have format {code} and {bits} bits; 16-bit PCM and G.711 can be taken"
        )
    form = SampleForm(encoding, rate_hz, channels)
    if problem := form.problem:
        raise BadWav(problem)
    return form
