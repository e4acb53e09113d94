"""Resampling 20 ms at a time through ``_native.resample`` beside soxr's stream, on real speech."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import median
from time import thread_time_ns

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from pytest_benchmark.fixture import BenchmarkFixture

from _native.resample import Resampler
from tests.support.speech import two_cities_pcm

PAIRS = [(48000, 16000), (48000, 24000), (44100, 16000), (44100, 24000), (8000, 16000)]
ALLOWED_US = {(48000, 16000): 8.0}
BLOCK_CHUNKS = 50


@cache
def speech(rate_hz: int) -> list[bytes]:
    """20 s of speech in chunks of 20 ms."""
    signal = np.frombuffer(two_cities_pcm()[: 20 * 96000], "<i2")
    pcm = soxr.resample(signal, 48000, rate_hz).astype("<i2").tobytes()
    size = 2 * (rate_hz // 50)
    return [pcm[start : start + size] for start in range(0, len(pcm) - size + 1, size)]


def timed_us(work: Callable[[], object]) -> float:
    begin = thread_time_ns()
    work()
    return (thread_time_ns() - begin) / (1000 * BLOCK_CHUNKS)


@pytest.mark.parametrize(
    ("in_rate_hz", "out_rate_hz"), PAIRS, ids=lambda rate_hz: f"{rate_hz / 1000:g}"
)
def test_20_ms(
    in_rate_hz: int,
    out_rate_hz: int,
    benchmark: BenchmarkFixture,
    figure: Callable[[str], None],
) -> None:
    """Both take each second of the speech in turn; medians are compared."""
    chunks = speech(in_rate_hz)
    arrays: list[npt.NDArray[np.int16]] = [np.frombuffer(chunk, "<i2") for chunk in chunks]
    ours_us: list[float] = []
    soxr_us: list[float] = []

    def whole_stream() -> None:
        ours = Resampler(in_rate_hz, out_rate_hz)
        theirs = soxr.ResampleStream(in_rate_hz, out_rate_hz, 1, dtype="int16")
        for start in range(0, len(chunks) - BLOCK_CHUNKS + 1, BLOCK_CHUNKS):
            block = slice(start, start + BLOCK_CHUNKS)
            ours_us.append(timed_us(lambda b=block: [ours.process(c) for c in chunks[b]]))
            soxr_us.append(timed_us(lambda b=block: [theirs.resample_chunk(a) for a in arrays[b]]))

    benchmark.pedantic(whole_stream, rounds=8, warmup_rounds=1)
    allowed = ALLOWED_US.get((in_rate_hz, out_rate_hz))
    limit = f" (at most {allowed:g})" if allowed else ""
    figure(
        f"resample {in_rate_hz / 1000:g} -> {out_rate_hz / 1000:g} kHz, 20 ms: _native "
        f"{median(ours_us):.2f} us{limit}, delay {Resampler(in_rate_hz, out_rate_hz).delay_ms:.2f} "
        f"ms; soxr HQ {median(soxr_us):.2f} us"
    )
    assert benchmark.disabled or allowed is None or median(ours_us) <= allowed


def test_opening(benchmark: BenchmarkFixture) -> None:
    """The filter of a pair of rates is made once; each further resampler shares it."""
    assert benchmark(Resampler, 44100, 24000).delay_samples
