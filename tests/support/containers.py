"""Opus in WebM as browsers record it, and Ogg pages of any kind, for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

UNKNOWN_SIZE = b"\x01\xff\xff\xff\xff\xff\xff\xff"


def opus_head(channels: int = 1, pre_skip: int = 0, family: bytes = b"\x00") -> bytes:
    """The identification header of RFC 7845 section 5.1."""
    return b"OpusHead\x01" + struct.pack("<BHIh", channels, pre_skip, 48000, 0) + family


def opus_tags(padding: int = 0) -> bytes:
    """The comment header of RFC 7845 section 5.2."""
    return b"OpusTags" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0) + bytes(padding)


def element(identifier: str, body: bytes, size: bytes | None = None) -> bytes:
    """An EBML element; its size takes eight bytes, as in a browser's recording, unless given."""
    return bytes.fromhex(identifier) + (size or struct.pack(">Q", 1 << 56 | len(body))) + body


def number(identifier: str, value: int) -> bytes:
    """An EBML element that holds an unsigned number."""
    body = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return element(identifier, body, bytes([0x80 | len(body)]))


def webm_header(
    codec: str = "A_OPUS",
    *,
    track: int = 1,
    private: bytes | None = None,
    delay_ns: int | None = None,
    scale_ns: int = 1_000_000,
    others: bytes = b"",
) -> bytes:
    """Everything before the first cluster, the segment's size unknown as in a live recording."""
    entry = number("d7", track) + number("73c5", 1234567) + number("83", 2)
    entry += element("86", codec.encode())
    entry += element("63a2", opus_head() if private is None else private)
    if delay_ns is not None:
        entry += number("56aa", delay_ns) + number("56bb", 80_000_000)
    entry += element("e1", element("b5", struct.pack(">f", 48000.0)) + number("9f", 1))
    info = number("2ad7b1", scale_ns) + element("4d80", b"test") + element("5741", b"test")
    return (
        element("1a45dfa3", number("4286", 1) + element("4282", b"webm"))
        + element("18538067", b"", UNKNOWN_SIZE)
        + element("ec", bytes(9))
        + element("1549a966", info)
        + element("1654ae6b", others + element("ae", entry))
    )


def block(
    track: int, relative: int, frames: Sequence[bytes], *, lacing: int = 0, flags: int = 0x80
) -> bytes:
    """The body of a block; ``lacing`` 0 none, 1 Xiph, 2 fixed, 3 EBML (RFC 9559 section 10.3)."""
    head = bytes([0x80 | track]) + struct.pack(">hB", relative, flags | lacing << 1)
    sizes = b""
    if lacing:
        head += bytes([len(frames) - 1])
    if lacing == 1:
        for frame in frames[:-1]:
            sizes += b"\xff" * (len(frame) // 255) + bytes([len(frame) % 255])
    elif lacing == 3:
        before = None
        for frame in frames[:-1]:
            if before is None:
                sizes += (0x4000 | len(frame)).to_bytes(2, "big")
            else:
                sizes += (0x4000 | (len(frame) - before + 0x1FFF)).to_bytes(2, "big")
            before = len(frame)
    return head + sizes + b"".join(frames)


def cluster(at: int, *blocks: bytes, known_size: bool = False) -> bytes:
    """A cluster of elements that hold blocks, at a time in the segment's unit."""
    body = number("e7", at) + b"".join(blocks)
    return element("1f43b675", body, None if known_size else UNKNOWN_SIZE)


def simple_block(track: int, relative: int, *frames: bytes, lacing: int = 0) -> bytes:
    """A block without references or duration."""
    return element("a3", block(track, relative, frames, lacing=lacing))


def block_group(track: int, relative: int, *frames: bytes, duration: int = 20) -> bytes:
    """A block with its duration, as in a recording's last block."""
    return element("a0", element("a1", block(track, relative, frames)) + number("9b", duration))


def webm(packets: Sequence[bytes], *, ms: int = 20, cluster_ms: int = 1000) -> bytes:
    """A live recording of packets that last ``ms`` each."""
    out = webm_header()
    for start in range(0, len(packets), cluster_ms // ms):
        out += cluster(
            start * ms,
            *(
                simple_block(1, offset * ms, packet)
                for offset, packet in enumerate(packets[start : start + cluster_ms // ms])
            ),
        )
    return out


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_crc(page: bytes) -> int:
    """RFC 3533's checksum by way of zlib's, which has the same polynomial with bits reversed."""
    raw = crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{raw:032b}"[::-1], 2)


def ogg_page(
    lacing: Sequence[int],
    body: bytes,
    *,
    serial: int = 1,
    sequence: int = 0,
    granule: int = 0,
    flags: int = 0,
) -> bytes:
    """A page, right in itself whatever it holds."""
    head = b"OggS\x00" + struct.pack("<BqII", flags, granule, serial, sequence)
    tail = bytes([len(lacing), *lacing]) + body
    crc = ogg_crc(head + bytes(4) + tail)
    return head + struct.pack("<I", crc) + tail


def lacing_of(*packets: bytes) -> list[int]:
    """Segment sizes of whole packets."""
    return [
        size for packet in packets for size in [*[255] * (len(packet) // 255), len(packet) % 255]
    ]


def ogg_packets(
    *packets: bytes, serial: int = 1, sequence: int = 0, granule: int = 0, flags: int = 0
) -> bytes:
    """A page of whole packets."""
    return ogg_page(
        lacing_of(*packets),
        b"".join(packets),
        serial=serial,
        sequence=sequence,
        granule=granule,
        flags=flags,
    )


CHROMIUM_WORDS = "alpha echo india"
"""What is said, in the tones of ``tests.asr.support.tones``, in ``chromium_recording``."""


def chromium_recording() -> bytes:
    """What a browser's MediaRecorder made of a tone generator in three seconds."""
    return (Path(__file__).parent / "recorded" / "chromium.webm").read_bytes()
