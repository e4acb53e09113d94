"""WAV files of chunks: a header for 16 kHz mono 16-bit samples, of which there are so many."""

from __future__ import annotations

import struct

from edge.meeting.records import RATE_HZ

HEADER_BYTES = 44
MOST_DATA_BYTES = 0xFFFFFFFF - HEADER_BYTES - 1
"""What the lengths of a WAV file can say: 37 hours."""
_SAMPLE_BYTES = 2
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def header(data_bytes: int) -> bytes:
    """The header of a file with ``data_bytes`` of samples.

    Source: Microsoft, Multimedia Programming Interface and Data Specifications 1.0, WAVE.
    """
    return _HEADER.pack(
        b"RIFF",
        HEADER_BYTES - 8 + data_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        RATE_HZ,
        RATE_HZ * _SAMPLE_BYTES,
        _SAMPLE_BYTES,
        8 * _SAMPLE_BYTES,
        b"data",
        data_bytes,
    )


def wav(pcm: bytes) -> bytes:
    """A whole file."""
    return header(len(pcm)) + pcm
