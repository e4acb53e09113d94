"""Real speech through loss: it stays where it was said, and sounds like what was said."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from edge.audio.renderer import Renderer
from edge.audio.sequencer import Sequencer
from edge.audio.settings import TrackSettings
from edge.audio.stats import TrackStats
from edge.audio.steps import Step, StepKind
from edge.audio.track import AudioTrack
from tests.audio.support.packets import speech

RATE_HZ = 16000
SECONDS = 20
Signal = npt.NDArray[np.float64]


def heard(packets: list[bytes | None], ms: int, stats: TrackStats | None = None) -> Signal:
    """What a track makes of these packets; None never arrives."""
    track = AudioTrack(TrackSettings())
    batches: list[bytes] = []
    track.open_feed(RATE_HZ, 0, batches.append).pump(1)
    for number, payload in enumerate(packets):
        now_s = number * ms / 1000
        track.tick(now_s)
        if payload is not None:
            track.packet(number, number * ms * 48, payload, now_s)
    track.finish()
    assert stats is None or track.stats == stats
    return signal(b"".join(batches))


def signal(pcm: bytes) -> Signal:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def with_loss(packets: list[bytes], share: float, burst: int = 1) -> list[bytes | None]:
    chance = random.Random(5)
    arriving: list[bytes | None] = list(packets)
    for start in range(10, len(packets) - 10, burst):
        if chance.random() < share:
            arriving[start : start + burst] = [None] * burst
    return arriving


def lag_samples(one: Signal, other: Signal) -> int:
    """How much later ``other`` is, by the peak of their cross-correlation."""
    size = 1 << (len(one) + len(other)).bit_length()
    spectrum = np.conj(np.fft.rfft(one, size)) * np.fft.rfft(other, size)
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    return lag if lag < size // 2 else lag - size


def snr_db(clean: Signal, other: Signal) -> float:
    return float(10 * np.log10(np.sum(clean**2) / np.sum((clean - other) ** 2)))


@pytest.mark.parametrize("ms", [10, 20, 40, 60])
@pytest.mark.parametrize("loss_percent", [0, 20], ids=["concealed", "recovered"])
@pytest.mark.parametrize("burst", [1, 3])
def test_speech_stays_in_time_through_loss(ms: int, loss_percent: int, burst: int) -> None:
    packets = speech(SECONDS * 1000 // ms, ms=ms, loss_percent=loss_percent)
    clean = heard(list(packets), ms)
    lossy = heard(with_loss(packets, 0.1, burst), ms)
    assert len(lossy) == len(clean) == len(packets) * ms * RATE_HZ // 1000
    assert lag_samples(clean, lossy) == 0
    for start in range(0, len(clean) - 2 * RATE_HZ, 2 * RATE_HZ):
        part = slice(start, start + 2 * RATE_HZ)
        assert lag_samples(clean[part], lossy[part]) == 0


def test_out_of_order_packets_sound_as_if_nothing_had_happened() -> None:
    packets = speech(500)
    chance = random.Random(7)
    order = sorted(range(500), key=lambda number: number + chance.choice((0, 0, 0, 1.5)))
    track = AudioTrack(TrackSettings())
    batches: list[bytes] = []
    track.open_feed(RATE_HZ, 0, batches.append).pump(1)
    for at, number in enumerate(order):
        track.tick(at * 0.02)
        track.packet(number, number * 960, packets[number], at * 0.02)
    track.finish()
    assert track.stats.reordered > 50
    assert track.stats.lost == 0
    assert np.array_equal(signal(b"".join(batches)), heard(list(packets), 20))


def test_a_pause_is_heard_as_long_as_it_was() -> None:
    packets = speech(200)
    track = AudioTrack(TrackSettings())
    batches: list[bytes] = []
    track.open_feed(RATE_HZ, 0, batches.append).pump(1)
    now_s = 0.0
    for number, payload in enumerate(packets):
        if number == 100:
            for _ in range(49):
                now_s += 0.02
                track.tick(now_s)
        now_s += 0.02
        track.packet(number, (number + 49 * (number >= 100)) * 960, payload, now_s)
        track.tick(now_s)
    track.finish()
    pcm = signal(b"".join(batches))
    clean = heard(list(packets), 20)
    pause = slice(100 * 320, 149 * 320)
    assert not pcm[pause].any()
    assert np.array_equal(pcm[: 100 * 320], clean[: 100 * 320])
    assert np.array_equal(pcm[149 * 320 :], clean[100 * 320 :])


def test_recovered_speech_is_nearer_to_what_was_said_than_concealed_speech() -> None:
    packets = speech(SECONDS * 50, loss_percent=20)
    arriving = with_loss(packets, 0.1)
    sequencer = Sequencer(TrackSettings(), TrackStats())
    steps: list[Step] = []
    for number, payload in enumerate(arriving):
        if payload is not None:
            steps += sequencer.push(number, number * 960, payload, number * 0.02)
        if number * 0.02 >= sequencer.wake_s:
            steps += sequencer.tick(number * 0.02)
    steps += sequencer.flush()
    concealing = [
        Step(StepKind.CONCEAL, step.samples) if step.kind is StepKind.FEC else step
        for step in steps
    ]
    clean = heard(list(packets), 20)
    recovered_db = snr_db(clean, played(steps))
    concealed_db = snr_db(clean, played(concealing))
    assert recovered_db > concealed_db + 2
    assert recovered_db > 6


def played(steps: list[Step]) -> Signal:
    batches: list[bytes] = []
    renderer = Renderer(RATE_HZ, 100, batches.append)
    for step in steps:
        renderer.play(step)
    renderer.flush()
    return signal(b"".join(batches))
