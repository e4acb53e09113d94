"""Steps become Opus packets again, for recognizers that take them as they came."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

from _native.ogg import Muxer
from edge.audio.steps import CLOCK_HZ, Step, StepKind

_PACKET = StepKind.PACKET
_SILENCE = StepKind.SILENCE
_SAMPLES_PER_MS = CLOCK_HZ // 1000
_STEREO = 0b100
_MANY_FRAMES = 0b11
# RFC 6716 table 2: samples of one frame, by configuration.
_FRAME_SAMPLES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
# Fullband CELT frames of 20, 10, 5 and 2.5 ms: what silence and odd lengths are made of.
_CELT = ((31, 960), (30, 480), (29, 240), (28, 120))
_SHORTEST = 120
# The flag that opens a CELT frame says that it is silent (RFC 6716 section 4.3).
_SILENT_FRAME = b"\xff\xfe"

DeliverPackets = Callable[[list[bytes]], None]
"""Takes the Opus packets of a batch, in order; the list is the receiver's to keep."""


class PacketRenderer:
    """Gathers a track's packets in batches and puts packets where there were none.

    Silence becomes silent frames. A loss, whether it could have been recovered or not, becomes one
    packet with an empty frame for each frame lost (RFC 7845 section 4.1): the recognizer's own
    decoder bridges it. Packets last whole multiples of 2.5 ms: what remains of a silence waits for
    the next one, so the packets are within 2.5 ms of as long as the steps. Nothing is decoded.
    ``deliver`` is called from inside ``play`` and ``flush``, after their own work is done.
    """

    __slots__ = ("_batch", "_deliver", "_owed", "_packets", "_toc", "waiting")

    def __init__(self, batch_ms: int, deliver: DeliverPackets) -> None:
        self._batch = batch_ms * _SAMPLES_PER_MS
        self._deliver = deliver
        self._packets: list[bytes] = []
        self._toc = 0
        """First byte of the last packet (RFC 6716 section 3.1)."""
        self._owed = 0
        """Samples of silence too short for a packet."""
        self.waiting = 0
        """What was played and not yet delivered, in 48 kHz samples."""

    def play(self, step: Step) -> bool:
        """Play the next step, which is not PCM; always True: payloads are not looked into."""
        kind = step.kind
        if kind is _PACKET:
            self._packets.append(step.payload)
            self._toc = step.payload[0]
        elif kind is _SILENCE:
            self._owed += step.samples
            packets = silent_packets(self._owed // _SHORTEST * _SHORTEST, self._toc & _STEREO)
            self._owed %= _SHORTEST
            self._packets += packets
        else:
            self._packets += empty_packets(step.samples, self._toc)
        self.waiting += step.samples
        if self.waiting >= self._batch:
            self.flush()
        return True

    def play_packets(self, packets: list[bytes], samples: int) -> int:
        """Play packets that together last so many samples; returns how many: all of them.

        A batch that is complete then is left to the caller to ``flush``.
        """
        self._packets += packets
        self._toc = packets[-1][0]
        self.waiting += samples
        return len(packets)

    def flush(self) -> None:
        """Deliver what is there, if anything is."""
        self.waiting = 0
        if self._packets:
            packets, self._packets = self._packets, []
            self._deliver(packets)

    def stop(self) -> None:
        """Deliver nothing more, and let go of who was delivered to."""
        self._deliver = _nobody


@cache
def silent_packets(samples: int, stereo: int) -> tuple[bytes, ...]:
    """Packets of digital silence that last so many samples, a multiple of 120 up to 5760."""
    return tuple(
        bytes((configuration << 3 | stereo,)) + _SILENT_FRAME
        for configuration in _celt_configurations(samples)
    )


@cache
def empty_packets(samples: int, toc: int) -> tuple[bytes, ...]:
    """Stand-ins for a lost packet of so many samples, a multiple of 120 up to 5760.

    ``toc`` is the first byte of the packet before it, whose mode and frame length they keep as far
    as that length goes into the loss.
    """
    frames, rest = divmod(samples, _FRAME_SAMPLES[toc >> 3])
    packets: list[bytes] = []
    if frames == 1:
        packets.append(bytes((toc & ~_MANY_FRAMES,)))
    elif frames:
        packets.append(bytes((toc | _MANY_FRAMES, frames)))
    packets += (
        bytes((configuration << 3 | toc & _STEREO,)) for configuration in _celt_configurations(rest)
    )
    return tuple(packets)


def _celt_configurations(samples: int) -> list[int]:
    configurations: list[int] = []
    for configuration, length in _CELT:
        frames, samples = divmod(samples, length)
        configurations += [configuration] * frames
    return configurations


def one_by_one(deliver: Callable[[bytes], None]) -> DeliverPackets:
    """Deliver each packet of a batch by itself."""

    def deliver_packets(packets: list[bytes]) -> None:
        for packet in packets:
            deliver(packet)

    return deliver_packets


def as_ogg(deliver: Callable[[bytes], None]) -> DeliverPackets:
    """Deliver each batch as whole pages of one Ogg stream, its headers before the first."""
    muxer: Muxer | None = None

    def deliver_packets(packets: list[bytes]) -> None:
        nonlocal muxer
        headers = b""
        if muxer is None:
            muxer = Muxer(random.getrandbits(32), 2 if packets[0][0] & _STEREO else 1)
            headers = muxer.headers()
        deliver(headers + muxer.pages(packets))

    return deliver_packets


def _nobody(packets: Sequence[bytes]) -> None:
    pass
