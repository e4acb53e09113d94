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

/* `count` decoders take turns, packet by packet, each from a place of its own in a loop of `length`
   packets; -1 if one could not be decoded. */
int floor_in_turns(OpusDecoder **decoders, int count, const unsigned char **packets,
                   const int *sizes, int length, int first, int steps, short *pcm, int room)
{
    for (int step = first; step < first + steps; step++)
        for (int index = 0; index < count; index++) {
            int at = (7 * index + step) % length;
            if (opus_decode(decoders[index], packets[at], sizes[at], pcm, room, 0) < 0)
                return -1;
        }
    return 0;
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
    floor.floor_in_turns.restype = ctypes.c_int
    floor.floor_in_turns.argtypes = [
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
        ctypes.c_int,
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


class FloorDecoders:
    """Decoders that take turns packet by packet, as those of many streams do, driven from C."""

    def __init__(
        self, floor: ctypes.CDLL, count: int, rate_hz: int, packets: Sequence[bytes]
    ) -> None:
        self._floor = floor
        self._count = count
        self._decoders = (ctypes.c_void_p * count)(
            *(floor.floor_open(rate_hz, 1) for _ in range(count))
        )
        self._packets = (ctypes.c_char_p * len(packets))(*packets)
        self._sizes = (ctypes.c_int * len(packets))(*map(len, packets))
        self._room = rate_hz * 120 // 1000
        self._pcm = ctypes.create_string_buffer(2 * self._room)

    def decode(self, first: int, steps: int) -> None:
        """Let each decode so many packets, from ``first`` on."""
        failed = self._floor.floor_in_turns(
            self._decoders,
            self._count,
            self._packets,
            self._sizes,
            len(self._sizes),
            first,
            steps,
            self._pcm,
            self._room,
        )
        assert not failed, "libopus refused a packet"

    def close(self) -> None:
        for decoder in self._decoders:
            self._floor.floor_close(decoder)
