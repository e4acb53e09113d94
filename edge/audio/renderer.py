"""Steps become PCM at the rate a recognizer wants, in batches."""

from __future__ import annotations

from collections.abc import Callable

from _native.opus import Decoder, OpusError
from edge.audio.pcm import PcmPlayer
from edge.audio.steps import CLOCK_HZ, PcmStep, Step, StepKind

_PACKET = StepKind.PACKET
_FEC = StepKind.FEC
_SILENCE = StepKind.SILENCE
_PCM = StepKind.PCM
_SAMPLE_BYTES = 2

Deliver = Callable[[bytes], None]
"""Takes a batch: mono, 16-bit little-endian."""


class Renderer:
    """One decoder and one buffer; the steps played are those of one track, in order.

    ``rate_hz`` is 8000, 12000, 16000, 24000 or 48000; packets are decoded straight at that rate,
    stereo ones mixed down, and ``n`` samples of steps make exactly ``n * rate_hz / 48000``
    samples. PCM, and silence in it, is resampled: it comes up to 2 ms late and is, however long it
    goes on, as long as its steps within two samples. Where Opus and PCM, or PCM of two rates, meet,
    the new one starts afresh and the last 2 ms of the old one are left out.
    ``deliver`` is called from inside ``play`` and ``flush``, after their own work is done.
    """

    __slots__ = (
        "_batch_bytes",
        "_buffer",
        "_decode_into",
        "_decode_run_into",
        "_decoder",
        "_deliver",
        "_divisor",
        "_filled",
        "_pcm",
        "_rate_hz",
        "waiting",
    )

    def __init__(self, rate_hz: int, batch_ms: int, deliver: Deliver) -> None:
        self._decoder = Decoder(rate_hz)
        self._decode_into = self._decoder.decode_into
        self._decode_run_into = self._decoder.decode_run_into
        self._pcm: PcmPlayer | None = None
        """While the track's audio is PCM."""
        self._rate_hz = rate_hz
        self._divisor = CLOCK_HZ // rate_hz
        self._deliver = deliver
        bytes_per_ms = rate_hz * _SAMPLE_BYTES // 1000
        self._batch_bytes = batch_ms * bytes_per_ms
        self._buffer = bytearray(self._batch_bytes)
        """Grows when the last step of a batch goes beyond it."""
        self._filled = 0
        self.waiting = 0
        """What was played and not yet delivered, in 48 kHz samples."""

    def play(self, step: Step) -> bool:
        """Play the next step; False says that its payload could not be decoded."""
        kind = step.kind
        if kind is _PCM or self._pcm is not None:
            pcm = self._player(step)
            if pcm is not None:
                self._put(pcm.play(step))
                return True
        filled = self._filled
        self._make_room(step.samples // self._divisor * _SAMPLE_BYTES)
        sound = True
        if kind is _PACKET:
            try:
                filled += self._decode_into(step.payload, self._buffer, filled) * _SAMPLE_BYTES
            except OpusError:
                sound = False
                filled += self._bridge(step)
        else:
            filled += self._silence(step) if kind is _SILENCE else self._bridge(step)
        self._fill(filled)
        return sound

    def play_packets(self, packets: list[bytes], samples: int) -> int:
        """Play packets that together last so many samples, all at once; returns how many it did.

        It is fewer when one cannot be decoded, and none while PCM is played: ``play`` goes on.
        A batch that is complete then is left to the caller to ``flush``.
        """
        if self._pcm is not None:
            return 0
        filled, buffer, divisor = self._filled, self._buffer, self._divisor
        if filled + samples // divisor * _SAMPLE_BYTES > len(buffer):
            self._make_room(samples // divisor * _SAMPLE_BYTES)
        played, samples = self._decode_run_into(packets, buffer, filled)
        self._filled = filled + samples * _SAMPLE_BYTES
        self.waiting += samples * divisor
        return played

    def flush(self) -> None:
        """Deliver what is there, if anything is."""
        filled, buffer = self._filled, self._buffer
        if filled:
            self._filled = self.waiting = 0
            self._deliver(bytes(buffer if filled == len(buffer) else memoryview(buffer)[:filled]))

    def stop(self) -> None:
        """Deliver nothing more, and let go of who was delivered to."""
        self._deliver = _nobody

    def _player(self, step: Step) -> PcmPlayer | None:
        """The resampler that plays this step, if it is not for the decoder."""
        pcm = self._pcm
        if isinstance(step, PcmStep):
            if pcm is None or pcm.in_rate_hz != step.rate_hz:
                self._decoder.reset()
                self._pcm = pcm = PcmPlayer(step.rate_hz, self._rate_hz)
        elif step.kind is not _SILENCE:
            self._pcm = pcm = None
        return pcm

    def _make_room(self, size: int) -> None:
        missing = self._filled + size - len(self._buffer)
        if missing > 0:
            self._buffer.extend(bytes(missing))

    def _put(self, pcm: bytes) -> None:
        end = self._filled + len(pcm)
        self._buffer[self._filled : end] = pcm
        self._fill(end)

    def _fill(self, end: int) -> None:
        """The buffer is filled up to here now."""
        self._filled = end
        self.waiting = end // _SAMPLE_BYTES * self._divisor
        if end >= self._batch_bytes:
            self.flush()

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
