"""What resampling does to sound, measured: level, aliases, images, delay, and soxr beside it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from _native.resample import RATES_HZ, Resampler

Signal = npt.NDArray[np.float64]

PAIRS = list(permutations(RATES_HZ, 2))
AMPLITUDE = 30000.0
SECONDS = 0.25


def sine(hertz: float, rate_hz: int, samples: int, delay_s: float = 0.0) -> Signal:
    return AMPLITUDE * np.sin(2 * np.pi * hertz * (np.arange(samples) / rate_hz - delay_s))


def resampled(signal: Signal, in_rate_hz: int, out_rate_hz: int) -> Signal:
    """Through a resampler in chunks of 20 ms; the first 10 ms, in which it fills, are left out."""
    resampler = Resampler(in_rate_hz, out_rate_hz)
    pcm = np.round(signal).astype("<i2").tobytes()
    size = 2 * (in_rate_hz // 50)
    chunks = [resampler.process(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    return np.frombuffer(b"".join(chunks), "<i2").astype(np.float64)[out_rate_hz // 100 :]


def heard(hertz: float, in_rate_hz: int, out_rate_hz: int) -> Signal:
    signal = sine(hertz, in_rate_hz, round(in_rate_hz * SECONDS))
    return resampled(signal, in_rate_hz, out_rate_hz)


def level_db(signal: Signal) -> float:
    """Relative to the sine that went in."""
    power = max(float(np.mean(signal**2)), 1e-12)
    return 10 * np.log10(power / (AMPLITUDE**2 / 2))


def split(signal: Signal, hertz: float, rate_hz: int) -> tuple[Signal, Signal]:
    """The part of a signal that is a sine of this frequency, and what is left."""
    phase = 2 * np.pi * hertz * np.arange(signal.size) / rate_hz
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, signal, rcond=None)
    tone = basis @ weights
    return tone, signal - tone


@pytest.mark.parametrize(("in_rate_hz", "out_rate_hz"), PAIRS)
def test_the_passband_is_level_and_the_stopband_silent(in_rate_hz: int, out_rate_hz: int) -> None:
    nyquist_hz = min(in_rate_hz, out_rate_hz) / 2
    for part, least_db in ((0.1, -0.01), (0.5, -0.01), (0.8, -0.01), (0.9, -1.0)):
        hertz = part * nyquist_hz
        tone, _ = split(heard(hertz, in_rate_hz, out_rate_hz), hertz, out_rate_hz)
        assert least_db <= level_db(tone) <= 0.01, part
    highest = min(in_rate_hz / 2 / nyquist_hz, 6.0)
    for part in (1.125, 1.25, 1.5, 1.8, 2.6, 3.4, 5.2):
        if part < highest:
            assert level_db(heard(part * nyquist_hz, in_rate_hz, out_rate_hz)) <= -75, part


@pytest.mark.parametrize(("in_rate_hz", "out_rate_hz"), PAIRS)
def test_a_tone_brings_no_other_tones(in_rate_hz: int, out_rate_hz: int) -> None:
    """Up to 0.875 of the Nyquist frequency, from where the image lies in the stopband."""
    for part in (0.05, 0.3, 0.6, 0.875):
        hertz = part * min(in_rate_hz, out_rate_hz) / 2
        _, rest = split(heard(hertz, in_rate_hz, out_rate_hz), hertz, out_rate_hz)
        assert level_db(rest) <= -75, part


@pytest.mark.parametrize(("in_rate_hz", "out_rate_hz"), PAIRS)
def test_the_delay_is_what_it_says_and_at_most_2_ms(in_rate_hz: int, out_rate_hz: int) -> None:
    resampler = Resampler(in_rate_hz, out_rate_hz)
    assert 0 < resampler.delay_ms <= 2
    assert resampler.delay_ms == resampler.delay_samples * 1000 / out_rate_hz
    hertz = 0.4 * min(in_rate_hz, out_rate_hz) / 2
    late = heard(hertz, in_rate_hz, out_rate_hz)
    skipped = out_rate_hz // 100
    expected = sine(hertz, out_rate_hz, skipped + late.size, resampler.delay_ms / 1000)[skipped:]
    assert level_db(late - expected) <= -60


@pytest.mark.parametrize(
    ("in_rate_hz", "out_rate_hz"),
    [(48000, 16000), (44100, 16000), (44100, 24000), (8000, 16000), (22050, 48000), (32000, 11025)],
)
def test_it_agrees_with_soxr(in_rate_hz: int, out_rate_hz: int) -> None:
    """On noise up to 0.8 of the lower Nyquist frequency, where both leave everything as it is."""
    samples = in_rate_hz // 2
    spectrum = np.fft.rfft(np.random.default_rng(7).normal(size=samples))
    spectrum[np.fft.rfftfreq(samples, 1 / in_rate_hz) > 0.4 * min(in_rate_hz, out_rate_hz)] = 0
    signal = np.fft.irfft(spectrum, samples)
    signal = np.round(signal * 20000 / np.abs(signal).max())
    ideal = soxr.resample(signal, in_rate_hz, out_rate_hz, quality="VHQ")
    ours = resampled(signal, in_rate_hz, out_rate_hz)
    skipped = out_rate_hz // 100 - Resampler(in_rate_hz, out_rate_hz).delay_samples
    theirs = ideal[skipped : skipped + ours.size]
    middle = slice(out_rate_hz // 20, -out_rate_hz // 20)
    error, power = np.mean((ours - theirs)[middle] ** 2), np.mean(theirs[middle] ** 2)
    assert 10 * np.log10(error / power) <= -65
