"""The resampler as a stream: counts, chunks, channels, byte order, and what callers get wrong."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _native.opus import build
from _native.resample import MAX_CHANNELS, RATES_HZ, BadFormat, Resampler, ResamplerBusy
from tests.support.threads import refused_to_a_second_thread

rates = st.sampled_from(RATES_HZ)


def noise(samples: int, channels: int = 1, seed: int = 1) -> bytes:
    """Full-scale noise, s16le."""
    generator = np.random.default_rng(seed)
    return generator.integers(-32768, 32768, samples * channels).astype("<i2").tobytes()


def cut(pcm: bytes, sizes: Sequence[int], unit: int) -> list[bytes]:
    """The input in chunks of these sizes, in units of so many bytes, and the rest."""
    chunks, at = [], 0
    for size in sizes:
        chunks.append(pcm[at : at + size * unit])
        at += size * unit
    return [*chunks, pcm[at:]]


@pytest.mark.parametrize("in_rate_hz", [rate for rate in RATES_HZ if rate % 50 == 0])
@pytest.mark.parametrize("out_rate_hz", [8000, 12000, 16000, 24000, 48000])
def test_20_ms_in_are_20_ms_out_from_the_first_call_on(in_rate_hz: int, out_rate_hz: int) -> None:
    resampler = Resampler(in_rate_hz, out_rate_hz)
    size = in_rate_hz // 50
    for _ in range(5):
        assert len(resampler.process(noise(size))) == 2 * out_rate_hz // 50


@given(rates, rates, st.lists(st.integers(0, 1500), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_is_due_is_the_exact_running_count(
    in_rate_hz: int, out_rate_hz: int, sizes: list[int]
) -> None:
    resampler = Resampler(in_rate_hz, out_rate_hz)
    taken = given_back = 0
    for size in sizes:
        due = resampler.due(size)
        assert len(resampler.process(bytes(2 * size))) == 2 * due
        taken += size
        given_back += due
        assert given_back == taken * out_rate_hz // in_rate_hz


@given(
    rates,
    rates,
    st.integers(1, MAX_CHANNELS),
    st.booleans(),
    st.lists(st.integers(0, 1100), max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_input_may_be_cut_anywhere(
    in_rate_hz: int, out_rate_hz: int, channels: int, big_endian: bool, sizes: list[int]
) -> None:
    pcm = noise(3000, channels)
    whole = Resampler(in_rate_hz, out_rate_hz, channels, big_endian=big_endian)
    cut_up = Resampler(in_rate_hz, out_rate_hz, channels, big_endian=big_endian)
    chunks = [cut_up.process(chunk) for chunk in cut(pcm, sizes, 2 * channels)]
    assert b"".join(chunks) + cut_up.flush() == whole.process(pcm) + whole.flush()


@given(rates, st.integers(1, MAX_CHANNELS), st.booleans(), st.binary(max_size=400))
def test_channels_are_averaged_in_either_byte_order(
    rate_hz: int, channels: int, big_endian: bool, data: bytes
) -> None:
    pcm = data[: len(data) // (2 * channels) * 2 * channels]
    sums = np.frombuffer(pcm, ">i2" if big_endian else "<i2").reshape(-1, channels).sum(axis=1)
    mono = Resampler(rate_hz, rate_hz, channels, big_endian=big_endian).process(pcm)
    mixed = np.frombuffer(mono, "<i2")
    assert np.all(np.abs(mixed - sums / channels) <= 0.5 + 1e-3)


@pytest.mark.parametrize(("in_rate_hz", "out_rate_hz"), [(44100, 16000), (8000, 24000)])
def test_mixing_down_on_the_way_is_mixing_down_before(in_rate_hz: int, out_rate_hz: int) -> None:
    mono = np.frombuffer(noise(2000), "<i2") // 2
    stereo = np.stack([mono + 1000, mono - 1000], axis=1).astype(">i2")
    mixed = Resampler(in_rate_hz, out_rate_hz, 2, big_endian=True).process(stereo.tobytes())
    assert mixed == Resampler(in_rate_hz, out_rate_hz).process(mono.astype("<i2").tobytes())


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_between_equal_rates_samples_pass_as_they_are(rate_hz: int) -> None:
    resampler = Resampler(rate_hz, rate_hz)
    assert (resampler.delay_samples, resampler.delay_ms) == (0, 0)
    assert resampler.process(noise(3000)) == noise(3000)
    assert resampler.flush() == b""


@pytest.mark.parametrize("level", [-32768, -1, 0, 1, 12345, 32767])
@pytest.mark.parametrize(("in_rate_hz", "out_rate_hz"), [(48000, 16000), (11025, 48000)])
def test_a_constant_stays_itself(in_rate_hz: int, out_rate_hz: int, level: int) -> None:
    resampler = Resampler(in_rate_hz, out_rate_hz)
    pcm = np.full(in_rate_hz // 10, level, "<i2").tobytes()
    settled = np.frombuffer(resampler.process(pcm), "<i2")[2 * resampler.delay_samples + 2 :]
    assert np.all(settled == level)


def test_the_loudest_input_is_clipped_and_never_wraps() -> None:
    square = np.tile(np.repeat([32767, -32768], 40), 60).astype("<i2")
    for out_rate_hz in RATES_HZ:
        resampler = Resampler(48000, out_rate_hz)
        pcm = resampler.process(square.tobytes()) + resampler.flush()
        heard = np.frombuffer(pcm, "<i2")[resampler.delay_samples :]
        middles = (np.arange(2, 100) * 40 + 20) * out_rate_hz // 48000
        assert np.all(np.sign(heard[middles]) == np.where(np.arange(2, 100) % 2, -1, 1))


def test_flush_gives_the_rest_and_starts_anew() -> None:
    used, fresh = Resampler(44100, 16000), Resampler(44100, 16000)
    first = used.process(noise(1000)) + used.flush()
    assert len(first) == 2 * (1000 * 16000 // 44100 + used.delay_samples)
    assert used.process(noise(500, seed=2)) == fresh.process(noise(500, seed=2))


def test_reset_makes_a_resampler_as_new() -> None:
    used, fresh = Resampler(22050, 48000), Resampler(22050, 48000)
    used.process(noise(777))
    used.reset()
    assert used.process(noise(500)) == fresh.process(noise(500))


def test_into_a_buffer_of_the_callers() -> None:
    expected = Resampler(48000, 16000).process(noise(960))
    out = bytearray(b"\x55" * 650)
    assert Resampler(48000, 16000).process_into(noise(960), out, 5) == 320
    assert out[5:645] == expected
    assert set(out[:5] + out[645:]) == {0x55}
    numbers = array("h", bytes(640))
    assert Resampler(48000, 16000).process_into(noise(960), numbers) == 320
    assert numbers.tobytes() == expected


@pytest.mark.parametrize(("size", "offset"), [(639, 0), (640, 1), (640, -1), (0, 0), (640, 641)])
def test_a_buffer_that_is_too_small_changes_nothing(size: int, offset: int) -> None:
    resampler = Resampler(48000, 16000)
    out = bytearray(size)
    with pytest.raises(BadFormat):
        resampler.process_into(noise(960), out, offset)
    assert not any(out)
    assert resampler.process(noise(960)) == Resampler(48000, 16000).process(noise(960))


def test_any_contiguous_bytes_are_taken_at_any_address() -> None:
    expected = Resampler(48000, 16000).process(noise(960))
    shifted = memoryview(b"x" + noise(960))[1:]
    for pcm in (shifted, bytearray(noise(960)), array("h", noise(960))):
        assert Resampler(48000, 16000).process(pcm) == expected


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda r: r.process(b"x"), BadFormat),
        (lambda r: r.process(bytes(6)), BadFormat),
        (lambda r: r.process(None), TypeError),
        (lambda r: r.process("text"), TypeError),
        (lambda r: r.process(memoryview(bytes(64))[::2]), BufferError),
        (lambda r: r.process_into(bytes(4), bytes(64)), BufferError),
        (lambda r: r.process_into(bytes(4), memoryview(bytearray(64))[::2]), BufferError),
        (lambda r: r.process_into(bytes(4), bytearray(64), 1 << 62), BadFormat),
        (lambda r: r.process_into(bytes(4), bytearray(64), 1 << 80), OverflowError),
        (lambda r: r.process_into(bytes(6), bytearray(64)), BadFormat),
        (lambda r: r.due(-1), BadFormat),
        (lambda r: r.due(1 << 62), BadFormat),
        (lambda r: r.due(1 << 80), OverflowError),
    ],
)
def test_a_wrong_call_is_refused_and_changes_nothing(wrong: Any, error: type[Exception]) -> None:
    resampler, fresh = Resampler(48000, 16000, 2), Resampler(48000, 16000, 2)
    assert resampler.process(noise(100, 2)) == fresh.process(noise(100, 2))
    with pytest.raises(error):
        wrong(resampler)
    assert resampler.process(noise(100, 2)) == fresh.process(noise(100, 2))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((0, 16000), "in_rate_hz=0"),
        ((-8000, 16000), "in_rate_hz=-8000"),
        ((96000, 16000), "in_rate_hz=96000"),
        ((48000, 44099), "out_rate_hz=44099"),
        ((48000, 16000, 0), "channels=0"),
        ((48000, 16000, 9), "channels=9"),
        ((48000, 16000, -1), "channels=-1"),
    ],
)
def test_an_unknown_format_is_refused_by_name(arguments: tuple[int, ...], names: str) -> None:
    with pytest.raises(BadFormat, match=names):
        Resampler(*arguments)


def test_a_second_thread_in_the_same_resampler_is_turned_away() -> None:
    resampler, pcm = Resampler(48000, 16000), noise(100_000)
    assert refused_to_a_second_thread(lambda: resampler.process(pcm), ResamplerBusy)
    resampler.reset()
    assert resampler.process(pcm) == Resampler(48000, 16000).process(pcm)


@pytest.mark.skipif(build() == "sanitize", reason="the sanitizer keeps freed memory for a while")
def test_resamplers_give_their_memory_back() -> None:
    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def use() -> None:
        pcm, out = noise(960, 2), bytearray(4096)
        for _ in range(400):
            resampler = Resampler(44100, 24000, 2)
            resampler.process(pcm)
            resampler.process_into(pcm, out)
            with pytest.raises(BadFormat):
                resampler.process(b"odd")
            with pytest.raises(BadFormat):
                resampler.process_into(pcm, out, 4000)
            resampler.flush()

    use()
    before = resident_pages()
    for _ in range(5):
        use()
    assert resident_pages() - before < 256
