"""Opus packets for tests: made by hand where only their header counts, else encoded from speech."""

from __future__ import annotations

from functools import cache

import numpy as np

from _native.opus import Encoder
from tests.support.speech import two_cities_pcm

# RFC 6716 table 2: configurations 0 to 3 are SILK narrowband with frames of these lengths.
_SILK = {10: 0, 20: 1, 40: 2, 60: 3}
_VOICE_FLAGS = {10: 1, 20: 1, 40: 2, 60: 3}
SPEECH_STARTS_MS = 1000


def silk(label: int, *, ms: int = 20, fec: bool = False, stereo: bool = False) -> bytes:
    """A well-formed packet whose last bytes are ``label``; it decodes to no particular sound."""
    tail = (label % 65536).to_bytes(2, "big")
    frame_ms = 60 if ms == 120 else ms
    first = 1 << (7 - _VOICE_FLAGS[frame_ms]) if fec else 0
    toc = _SILK[frame_ms] << 3 | stereo << 2 | (ms == 120)
    second_frame = bytes(6) if ms == 120 else b""
    return bytes([toc, first, 0, 0, 0]) + second_frame + tail


def label(payload: bytes) -> int:
    """The label of a packet made by ``silk``."""
    return int.from_bytes(payload[-2:], "big")


@cache
def speech(count: int, *, ms: int = 20, channels: int = 1, loss_percent: int = 0) -> list[bytes]:
    """Packets of read speech from its first second on; with ``loss_percent`` they carry FEC."""
    pcm = two_cities_pcm()[96 * SPEECH_STARTS_MS :]
    encoder = Encoder(
        48000, channels, bitrate_bps=32000, fec=loss_percent > 0, loss_percent=loss_percent
    )
    size = 96 * ms
    return [
        encoder.encode(
            np.repeat(np.frombuffer(pcm[start : start + size], "<i2"), channels).tobytes()
        )
        for start in range(0, count * size, size)
    ]
