"""libopus called from C: what decoding costs when nothing stands between."""

from __future__ import annotations

import ctypes
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = """
#include <opus.h>
#include <stdlib.h>

OpusDecoder *floor_open(int rate_hz, int channels)
{
    int error;
    return opus_decoder_create(rate_hz, channels, &error);
}

void floor_close(OpusDecoder *decoder)
{
    opus_decoder_destroy(decoder);
}

/* Decode `count` packets laid end to end, each into the same `pcm`; samples in all, or -1. */
long floor_decode(OpusDecoder *decoder, const unsigned char *packets, const int *sizes, int count,
                  short *pcm, int room)
{
    long total = 0;
    for (int number = 0; number < count; number++) {
        int samples = opus_decode(decoder, packets, sizes[number], pcm, room, 0);
        if (samples < 0)
            return -1;
        total += samples;
        packets += sizes[number];
    }
    return total;
}
"""


class NoCompiler(Exception):
    """The floor cannot be built here; the message says what is missing."""


def build(folder: Path) -> ctypes.CDLL:
    """Compile the C loop against the libopus that the extension uses, and load it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or shutil.which("pkg-config") is None:
        raise NoCompiler("no C floor: apt-get install gcc pkg-config libopus-dev")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "opus"], capture_output=True, text=True, check=True
    ).stdout
    source, library = folder / "floor.c", folder / "floor.so"
    source.write_text(SOURCE)
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", library, source, *shlex.split(flags)],
        check=True,
    )
    floor = ctypes.CDLL(str(library))
    floor.floor_open.restype = ctypes.c_void_p
    floor.floor_open.argtypes = [ctypes.c_int, ctypes.c_int]
    floor.floor_close.restype = None
    floor.floor_close.argtypes = [ctypes.c_void_p]
    floor.floor_decode.restype = ctypes.c_long
    floor.floor_decode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    return floor


class Block:
    """Packets that follow each other, laid out for C once so that timing sees decoding only."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.packets = packets
        self.joined = b"".join(packets)
        self.sizes = (ctypes.c_int * len(packets))(*map(len, packets))


class FloorDecoder:
    """One decoder of libopus, driven block by block from C."""

    def __init__(self, floor: ctypes.CDLL, rate_hz: int, channels: int = 1) -> None:
        self._floor = floor
        self._room = rate_hz * 120 // 1000
        self._pcm = ctypes.create_string_buffer(2 * channels * self._room)
        self._decoder = floor.floor_open(rate_hz, channels)
        if not self._decoder:
            raise MemoryError("libopus gave no decoder")

    def decode(self, block: Block) -> int:
        """Decode a block; returns the samples per channel."""
        samples: int = self._floor.floor_decode(
            self._decoder, block.joined, block.sizes, len(block.packets), self._pcm, self._room
        )
        return samples

    def close(self) -> None:
        self._floor.floor_close(self._decoder)
