"""Steps become PCM at the rate a recognizer wants, in batches."""

from __future__ import annotations

from collections.abc import Callable

from _native.opus import Decoder, OpusError
from edge.audio.steps import CLOCK_HZ, Step, StepKind

_PACKET = StepKind.PACKET
_FEC = StepKind.FEC
_SILENCE = StepKind.SILENCE
_SAMPLE_BYTES = 2

Deliver = Callable[[bytes], None]
"""Takes a batch: mono, 16-bit little-endian."""


class Renderer:
    """One decoder and one buffer; the steps played are those of one track, in order.

    ``rate_hz`` is 8000, 12000, 16000, 24000 or 48000; packets are decoded straight at that rate,
    stereo ones mixed down. ``n`` samples of steps make exactly ``n * rate_hz / 48000`` samples.
    ``deliver`` is called from inside ``play`` and ``flush``, after their own work is done.
    """

    __slots__ = (
        "_batch_bytes",
        "_buffer",
        "_decode_into",
        "_decoder",
        "_deliver",
        "_divisor",
        "_filled",
    )

    def __init__(self, rate_hz: int, batch_ms: int, deliver: Deliver) -> None:
        self._decoder = Decoder(rate_hz)
        self._decode_into = self._decoder.decode_into
        self._divisor = CLOCK_HZ // rate_hz
        self._deliver = deliver
        bytes_per_ms = rate_hz * _SAMPLE_BYTES // 1000
        self._batch_bytes = batch_ms * bytes_per_ms
        self._buffer = bytearray(self._batch_bytes)
        """Grows when the last step of a batch goes beyond it."""
        self._filled = 0

    @property
    def waiting(self) -> int:
        """What was played and not yet delivered, in 48 kHz samples."""
        return self._filled // _SAMPLE_BYTES * self._divisor

    def play(self, step: Step) -> bool:
        """Play the next step; False says that its payload could not be decoded."""
        filled = self._filled
        size = step.samples // self._divisor * _SAMPLE_BYTES
        if filled + size > len(self._buffer):
            self._buffer.extend(bytes(filled + size - len(self._buffer)))
        sound = True
        kind = step.kind
        if kind is _PACKET:
            try:
                filled += self._decode_into(step.payload, self._buffer, filled) * _SAMPLE_BYTES
            except OpusError:
                sound = False
                filled += self._bridge(step)
        else:
            filled += self._silence(step) if kind is _SILENCE else self._bridge(step)
        self._filled = filled
        if filled >= self._batch_bytes:
            self.flush()
        return sound

    def flush(self) -> None:
        """Deliver what is there, if anything is."""
        if self._filled:
            filled, self._filled = self._filled, 0
            self._deliver(bytes(memoryview(self._buffer)[:filled]))

    def stop(self) -> None:
        """Deliver nothing more, and let go of who was delivered to."""
        self._deliver = _nobody

    def _bridge(self, step: Step) -> int:
        """Recover or conceal; returns the bytes written."""
        samples = step.samples // self._divisor
        if step.kind is _FEC:
            try:
                self._decoder.recover_into(step.payload, samples, self._buffer, self._filled)
                return samples * _SAMPLE_BYTES
            except OpusError:
                pass
        return self._decoder.conceal_into(samples, self._buffer, self._filled) * _SAMPLE_BYTES

    def _silence(self, step: Step) -> int:
        size = step.samples // self._divisor * _SAMPLE_BYTES
        self._buffer[self._filled : self._filled + size] = bytes(size)
        return size


def _nobody(batch: bytes) -> None:
    pass
