"""G.711: 8-bit logarithmic samples to 16-bit linear ones, a buffer at a time.

Each half of a sample is one look into a table of 256 (``bytes.translate``). Source: ITU-T G.711,
tables 1a and 2a; the values are those of the ITU's reference implementation (G.191).
"""

from __future__ import annotations

from collections.abc import Callable

_BIAS = 33


def _mulaw(code: int) -> int:
    inverted = ~code & 0xFF
    segment, step = inverted >> 4 & 7, inverted & 0xF
    magnitude = ((2 * step + _BIAS) << segment) - _BIAS
    return -4 * magnitude if inverted & 0x80 else 4 * magnitude


def _alaw(code: int) -> int:
    toggled = code ^ 0x55
    segment, step = toggled >> 4 & 7, toggled & 0xF
    magnitude = 2 * step + 1 if segment == 0 else (2 * step + _BIAS) << segment - 1
    return 8 * magnitude if toggled & 0x80 else -8 * magnitude


def _tables(linear: Callable[[int], int]) -> tuple[bytes, bytes]:
    samples = [linear(code) & 0xFFFF for code in range(256)]
    return bytes(sample & 0xFF for sample in samples), bytes(sample >> 8 for sample in samples)


_MULAW = _tables(_mulaw)
_ALAW = _tables(_alaw)


def from_mulaw(codes: bytes) -> bytes:
    """Signed 16-bit little-endian samples of mu-law codes."""
    return _expand(codes, _MULAW)


def from_alaw(codes: bytes) -> bytes:
    """Signed 16-bit little-endian samples of A-law codes."""
    return _expand(codes, _ALAW)


def _expand(codes: bytes, tables: tuple[bytes, bytes]) -> bytes:
    samples = bytearray(2 * len(codes))
    samples[0::2] = codes.translate(tables[0])
    samples[1::2] = codes.translate(tables[1])
    return bytes(samples)
