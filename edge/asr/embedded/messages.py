"""What a worker and the inference process say to each other, and how it is framed.

Each message is a 4-byte big-endian length and as many bytes of MessagePack. A connection begins
with the process's ``Ready``; then each ``Decode`` is answered by one ``Answer``, in any order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum, IntEnum
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import SettingError

LARGEST_MESSAGE: Final = 2 * 1024 * 1024
"""Bytes; a segment of 20 s is 640 kB."""
LONGEST_SOCKET_PATH: Final = 107
"""Bytes of ``sockaddr_un.sun_path`` without its final zero (unix(7))."""

LEAST_MEAN_LOG_P: Final = -0.9
"""Text that the model finds less likely than this is no speech (measured on noise)."""

_LENGTH: Final = struct.Struct(">I")


class Kind(IntEnum):
    """Why a segment is decoded; finals and speculative finals go before interims."""

    FINAL = 0
    SPECULATIVE = 1
    """The utterance is probably over; a newer request of its segment takes its place."""
    INTERIM = 2


class Outcome(Enum):
    """How a request ended."""

    DONE = "done"
    SKIPPED = "skipped"
    """Not decoded: superseded, or an interim that there was no time for."""
    REFUSED = "refused"
    """Not decoded: too many finals wait already."""
    FAILED = "failed"
    """The engine raised an error."""


class Decode(msgspec.Struct, frozen=True, array_like=True):
    """Turn a segment's audio into text."""

    id: int
    """Unique in its connection."""
    stream: int
    segment: int
    """Number of the segment in its stream."""
    kind: Kind
    pcm: bytes
    """Mono s16le at 16 kHz."""
    context: int = 0
    """Samples at the beginning of ``pcm`` that belong to the utterance before."""
    prefix: tuple[int, ...] = ()
    """Tokens of that utterance; the answer goes on after them."""


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The weights are loaded, or ``error`` says why they cannot be."""

    error: str | None = None


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The end of the request ``id``."""

    id: int
    outcome: Outcome
    text: str = ""
    mean_log_p: float = 0.0
    tokens: tuple[int, ...] = ()
    load: float = 0.0
    """Share of the inference threads' time in use lately, 0 to 1."""

    @property
    def is_likely(self) -> bool:
        """Whether it holds text that the model believes itself."""
        return bool(self.text) and self.mean_log_p >= LEAST_MEAN_LOG_P


class Deframer:
    """Cuts a byte stream into message bodies."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Bodies completed by ``data``; ``ValueError`` when one is announced as too long."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > LARGEST_MESSAGE:
                raise ValueError(f"a message of {length} bytes exceeds {LARGEST_MESSAGE}")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            body = bytes(memoryview(self._data)[_LENGTH.size : end])
            del self._data[:end]
            yield body


def frame(body: bytes) -> tuple[bytes, bytes]:
    """The two pieces to write for one message body."""
    return _LENGTH.pack(len(body)), body


def check_socket_path(path: Path) -> None:
    """``SettingError`` if the operating system cannot bind a Unix socket at ``path``."""
    size = len(bytes(path))
    if size > LONGEST_SOCKET_PATH:
        raise SettingError(
            "inference socket",
            str(path),
            f"a Unix socket's path may have {LONGEST_SOCKET_PATH} bytes and this has {size}; "
            "choose a shorter TMPDIR",
        )
