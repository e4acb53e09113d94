"""A strict reader of Ogg Opus as a service sees it: whole pages, CRC, order, headers, pre-skip.

Independent of the product's own demuxer. Source: RFC 3533, RFC 7845.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEAD = struct.Struct("<4sBBqIIIB")
POLYNOMIAL = 0x04C11DB7


class OggReader:
    """Raises ``ValueError`` for anything that is not the next pages of one Ogg Opus stream."""

    def __init__(self) -> None:
        self.pages = 0
        self.pre_skip = 0
        """Samples at 48 kHz that are still to be left out."""
        self._serial: int | None = None
        self._sequence = 0
        self._part = b""
        self._headers = 0

    def packets(self, data: bytes) -> Iterator[bytes]:
        """The Opus packets that end in these whole pages."""
        at = 0
        while at < len(data):
            end, packets = self._page(data, at)
            at = end
            for packet in packets:
                if self._headers < 2:
                    self._header(packet)
                else:
                    yield packet

    def take_skip(self, samples: int, rate_hz: int) -> int:
        """How many of the first samples at this rate belong to the pre-skip."""
        skip = min(samples, self.pre_skip * rate_hz // 48000)
        self.pre_skip -= skip * 48000 // rate_hz
        return skip

    def _page(self, data: bytes, at: int) -> tuple[int, list[bytes]]:
        if len(data) - at < HEAD.size:
            raise ValueError("a page is cut off")
        magic, version, flags, _, serial, sequence, crc, segments = HEAD.unpack_from(data, at)
        if magic != b"OggS" or version:
            raise ValueError("not an Ogg page")
        lacing = data[at + HEAD.size : at + HEAD.size + segments]
        body = at + HEAD.size + segments
        end = body + sum(lacing)
        if len(lacing) < segments or end > len(data):
            raise ValueError("a page is cut off")
        page = data[at : at + 22] + bytes(4) + data[at + 26 : end]
        if _crc(page) != crc:
            raise ValueError("a page is damaged")
        if self._serial is None:
            if not flags & 2:
                raise ValueError("the first page does not begin a stream")
            self._serial = serial
        if serial != self._serial or sequence != self._sequence:
            raise ValueError("a page of another stream, or out of order")
        if bool(flags & 1) != bool(self._part):
            raise ValueError("a page does not continue the packet before it")
        self._sequence += 1
        self.pages += 1
        return end, self._cut(data[body:end], lacing)

    def _cut(self, body: bytes, lacing: bytes) -> list[bytes]:
        packets, at = [], 0
        for size in lacing:
            self._part += body[at : at + size]
            at += size
            if size < 255:
                packets.append(self._part)
                self._part = b""
        return packets

    def _header(self, packet: bytes) -> None:
        if self._headers == 0:
            if packet[:8] != b"OpusHead" or len(packet) < 19:
                raise ValueError("no OpusHead")
            self.pre_skip = int.from_bytes(packet[10:12], "little")
        elif packet[:8] != b"OpusTags":
            raise ValueError("no OpusTags")
        self._headers += 1


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (POLYNOMIAL if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_TABLE = _crc_table()


def _crc(data: bytes) -> int:
    value = 0
    for byte in data:
        value = ((value << 8) & 0xFFFFFFFF) ^ _TABLE[(value >> 24) ^ byte]
    return value
