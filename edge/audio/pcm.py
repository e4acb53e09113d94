"""Audio that comes uncoded (L16): from a sender's format to steps, and from steps to PCM."""

from __future__ import annotations

import msgspec

from _native.resample import MAX_CHANNELS, RATES_HZ, Resampler
from edge.audio.steps import CLOCK_HZ, PcmStep, Step, StepKind

_SAMPLE_BYTES = 2


class PcmFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Signed 16-bit samples, channels interleaved, as a sender announces them."""

    rate_hz: int
    channels: int
    big_endian: bool = False

    @property
    def problem(self) -> str | None:
        """Why audio of this format cannot be taken, if so."""
        if self.rate_hz not in RATES_HZ:
            known = ", ".join(map(str, RATES_HZ))
            return f"l16 at {self.rate_hz} Hz cannot be taken; sampleRate must be one of: {known}"
        if not 1 <= self.channels <= MAX_CHANNELS:
            return f"l16 has 1 to {MAX_CHANNELS} channels, not {self.channels}"
        return None


class PcmIntake:
    """Turns a sender's packets of one format into steps: mixed down, at the sender's rate.

    Steps count 48 kHz samples, which are no whole number for most packets at 44.1 kHz: what is left
    over is carried from packet to packet.
    """

    __slots__ = ("_carry", "_mixer", "format")

    def __init__(self, pcm: PcmFormat) -> None:
        self.format = pcm
        self._mixer = Resampler(pcm.rate_hz, pcm.rate_hz, pcm.channels, big_endian=pcm.big_endian)
        self._carry = 0

    def measure(self, payload: bytes) -> int:
        """About how many 48 kHz samples a packet lasts; 0 if a sample of it is cut off."""
        frames, cut_off = divmod(len(payload), _SAMPLE_BYTES * self.format.channels)
        return 0 if cut_off else frames * CLOCK_HZ // self.format.rate_hz

    def step(self, payload: bytes) -> PcmStep:
        """The step of a packet that ``measure`` found whole."""
        mono = self._mixer.process(payload)
        ticks = len(mono) // _SAMPLE_BYTES * CLOCK_HZ + self._carry
        samples, self._carry = divmod(ticks, self.format.rate_hz)
        return PcmStep(StepKind.PCM, samples, mono, self.format.rate_hz)


class PcmPlayer:
    """Plays PCM steps of one rate, and the silence between them, through one resampler.

    Silence goes through it too, so that sound begins and ends without a click. However many steps
    are played, the PCM is within two samples of as long as they say.
    """

    __slots__ = ("_position", "_resampler", "_taken")

    def __init__(self, in_rate_hz: int, out_rate_hz: int) -> None:
        self._resampler = Resampler(in_rate_hz, out_rate_hz)
        self._position = 0
        """48 kHz samples of the steps played."""
        self._taken = 0
        """Samples the resampler was given."""

    @property
    def in_rate_hz(self) -> int:
        """The rate of the steps it plays."""
        return self._resampler.in_rate_hz

    def play(self, step: Step) -> bytes:
        """PCM of a PCM step of this rate, or of a step of silence."""
        self._position += step.samples
        payload = step.payload
        if step.kind is not StepKind.PCM:
            due = self._position * self.in_rate_hz // CLOCK_HZ
            payload = bytes(_SAMPLE_BYTES * max(0, due - self._taken))
        self._taken += len(payload) // _SAMPLE_BYTES
        return self._resampler.process(payload)
