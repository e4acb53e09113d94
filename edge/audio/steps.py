"""What a track's audio is made of: steps that any decoder can play, now or again later.

The sequencer turns packets into steps; a renderer plays them to PCM at any rate. Keeping steps
instead of PCM makes replay cheap in memory (durable sessions hold 30 s of packets a track).
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import msgspec

CLOCK_HZ = 48000
"""Steps and media timestamps count 48 kHz samples (RFC 7587 section 4.1)."""
_SAMPLES_PER_MS = CLOCK_HZ // 1000


class StepKind(IntEnum):
    """How a step is played."""

    PACKET = 0
    """Decode ``payload``; if it is corrupt, conceal ``samples`` instead."""
    FEC = 1
    """Recover ``samples`` of loss from the in-band FEC of ``payload``, the packet after it."""
    CONCEAL = 2
    """Let the decoder conceal ``samples`` of loss."""
    SILENCE = 3
    """Zeros: DTX, mute, or a gap too long to conceal."""
    PCM = 4
    """Resample ``payload``; the step is a ``PcmStep``."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One piece of a track's audio; ``samples`` is its length in 48 kHz samples per channel."""

    kind: StepKind
    samples: int
    payload: bytes = b""


class PcmStep(Step, frozen=True, gc=False):
    """A piece of audio that came uncoded; ``payload`` is mono, 16-bit little-endian."""

    rate_hz: int = CLOCK_HZ
    """Of ``payload``; one of ``_native.resample.RATES_HZ``."""


@cache
def bare_step(kind: StepKind, samples: int) -> Step:
    """Steps without a payload are few different ones: they are shared."""
    return Step(kind, samples)


def whole_ms(samples: int) -> int:
    """The 48 kHz samples of the whole milliseconds in so many: whole samples at every rate."""
    return samples // _SAMPLES_PER_MS * _SAMPLES_PER_MS
