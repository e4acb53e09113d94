"""Tracks of PCM: any announced format, with the order, loss, silence and replay of Opus tracks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _native.opus import Decoder
from _native.resample import RATES_HZ, Resampler
from edge.audio.pcm import PcmFormat
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from tests.audio.support.packets import speech
from tests.support.speech import two_cities_pcm

ALL = math.inf
MONO_16K = PcmFormat(rate_hz=16000, channels=1)


def voice(rate_hz: int, ms: int, from_ms: int = 1000) -> bytes:
    """Speech, s16le mono."""
    pcm = two_cities_pcm()[96 * from_ms : 96 * (from_ms + ms)]
    return Resampler(48000, rate_hz).process(pcm)


def chunked(pcm: bytes, size: int) -> list[bytes]:
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


class Listener:
    """A track of one format and a live feed on it."""

    def __init__(self, pcm: PcmFormat | None, rate_hz: int = 16000) -> None:
        self.track = AudioTrack(TrackSettings())
        self.track.restart(pcm)
        self.batches: list[bytes] = []
        self.feed = self.track.open_feed(rate_hz, 0, self.batches.append)
        self.feed.pump(ALL)

    def send(self, packets: dict[int, bytes], ms: float = 20, timed: bool = True) -> None:
        for number, payload in packets.items():
            timestamp = round(number * ms * 48) if timed else None
            self.track.packet(number, timestamp, payload, number * ms / 1000)

    def heard(self) -> bytes:
        self.track.finish()
        return b"".join(self.batches)


def replayed(track: AudioTrack, rate_hz: int) -> bytes:
    batches: list[bytes] = []
    track.open_feed(rate_hz, 0, batches.append).pump(ALL)
    track.finish()
    return b"".join(batches)


def level(pcm: bytes) -> float:
    return float(np.sqrt(np.mean(np.frombuffer(pcm, "<i2").astype(np.float64) ** 2)))


@pytest.mark.parametrize("in_rate_hz", RATES_HZ)
@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_every_rate_is_resampled_without_a_seam(in_rate_hz: int, rate_hz: int) -> None:
    pcm = voice(in_rate_hz, 500)
    listener = Listener(PcmFormat(rate_hz=in_rate_hz, channels=1), rate_hz)
    listener.send(dict(enumerate(chunked(pcm, 2 * 331))), timed=False)
    assert listener.heard() == Resampler(in_rate_hz, rate_hz).process(pcm)
    assert abs(listener.track.end_ms - len(pcm) * 500 / in_rate_hz) < 0.05


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("big_endian", [False, True])
def test_channels_are_mixed_down_in_either_byte_order(channels: int, big_endian: bool) -> None:
    mono = np.frombuffer(voice(48000, 400), "<i2")
    packed = np.repeat(mono, channels).astype(">i2" if big_endian else "<i2").tobytes()
    listener = Listener(PcmFormat(rate_hz=48000, channels=channels, big_endian=big_endian))
    listener.send(dict(enumerate(chunked(packed, 1920 * channels))))
    assert listener.heard() == Resampler(48000, 16000).process(mono.tobytes())
    stats = listener.track.stats
    assert (stats.decoded, stats.corrupt, stats.silence_ms, stats.jumps) == (20, 0, 0, 0)


def test_packets_are_put_in_order() -> None:
    pcm = voice(16000, 200)
    packets = dict(enumerate(chunked(pcm, 640)))
    packets = {number: packets[number] for number in (0, 2, 1, 3, 5, 4, 6, 7, 8, 9)}
    listener = Listener(MONO_16K)
    listener.send({**packets, 10: bytes(640)})
    listener.send({3: packets[3]})
    assert listener.heard() == pcm + bytes(640)
    assert (listener.track.stats.reordered, listener.track.stats.duplicate) == (2, 1)


@pytest.mark.parametrize("timed", [True, False])
def test_a_lost_packet_is_silent_for_as_long_as_it_was(timed: bool) -> None:
    packets = dict(enumerate(chunked(voice(16000, 400), 640)))
    del packets[7], packets[8]
    listener = Listener(MONO_16K)
    listener.send(packets, timed=timed)
    expected = voice(16000, 400)
    assert listener.heard() == expected[: 7 * 640] + bytes(2 * 640) + expected[9 * 640 :]
    stats = listener.track.stats
    assert (stats.lost, stats.silenced, stats.concealed, stats.skipped) == (2, 2, 0, 0)


def test_lost_packets_of_odd_lengths_are_counted_silent_too() -> None:
    """1024 samples at 44.1 kHz are 23.22 ms; silence comes in whole milliseconds."""
    packets = dict(enumerate(chunked(voice(44100, 1000), 2048)))
    for number in (10, 20, 21):
        del packets[number]
    listener = Listener(PcmFormat(rate_hz=44100, channels=1))
    listener.send(packets, ms=1024 / 44.1)
    heard_ms = len(listener.heard()) / 32
    stats = listener.track.stats
    assert (stats.lost, stats.silenced, stats.skipped, stats.jumps) == (3, 3, 0, 0)
    assert abs(heard_ms - 1000) < 1.5
    assert abs(listener.track.timeline.map_ms(listener.track.end_ms) - 1000) < 1.5


def test_a_pause_is_silence_and_the_session_clock_runs_on() -> None:
    first, second = voice(22050, 200), voice(22050, 200, 2000)
    listener = Listener(PcmFormat(rate_hz=22050, channels=1))
    for number, payload in enumerate(chunked(first, 882)):
        listener.track.packet(number, number * 960, payload, number * 0.02)
    for number, payload in enumerate(chunked(second, 882)):
        listener.track.packet(10 + number, (60 + number) * 960, payload, 1.2 + number * 0.02)
    heard = listener.heard()
    assert abs(len(heard) - 32 * 1400) <= 4
    assert level(heard[32 * 210 : 32 * 1190]) == 0
    assert level(heard[32 * 1210 :]) > 100
    assert listener.track.stats.silence_ms == 1000


def test_silence_is_made_up_for_a_sender_that_stops() -> None:
    listener = Listener(PcmFormat(rate_hz=44100, channels=2))
    listener.track.packet(0, 0, bytes(3528), 0.0)
    now_s = 0.0
    while now_s < 1.0:
        now_s += 0.02
        listener.track.tick(now_s)
    assert 900 <= listener.track.end_ms <= 1000
    assert abs(len(listener.heard()) - 32 * listener.track.end_ms) <= 4


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_packet_with_a_cut_off_sample_is_silent_and_counted_corrupt(channels: int) -> None:
    mono = np.frombuffer(voice(16000, 200), "<i2")
    packed = np.repeat(mono, channels).tobytes()
    packets = dict(enumerate(chunked(packed, 640 * channels)))
    packets[5] = packets[5][:-1]
    listener = Listener(PcmFormat(rate_hz=16000, channels=channels))
    listener.send(packets)
    heard = listener.heard()
    assert heard == mono.tobytes()[:3200] + bytes(640) + mono.tobytes()[3840:]
    assert (listener.track.stats.decoded, listener.track.stats.corrupt) == (9, 1)


def test_an_empty_payload_is_dropped() -> None:
    listener = Listener(MONO_16K)
    listener.send({0: b"\1\0" * 320, 1: b""})
    assert listener.heard() == b"\1\0" * 320
    assert listener.track.stats.empty == 1


def test_zeros_are_no_speech() -> None:
    listener = Listener(MONO_16K)
    listener.send({0: bytes(640), 1: bytes(640)})
    assert not listener.track.speech_since(0)
    listener.send({2: bytes(639) + b"\1"})
    assert listener.track.speech_since(40)
    assert not listener.track.speech_since(60)


@pytest.mark.parametrize("rate_hz", [16000, 24000])
def test_a_replay_is_what_was_heard_live(rate_hz: int) -> None:
    packets = dict(enumerate(chunked(voice(44100, 600), 1764)))
    del packets[11]
    listener = Listener(PcmFormat(rate_hz=44100, channels=1), rate_hz)
    listener.send(packets)
    assert listener.heard() == replayed(listener.track, rate_hz)
    assert listener.track.stats.decoded == len(packets)


def test_a_replay_from_the_middle_has_the_same_sound() -> None:
    listener = Listener(PcmFormat(rate_hz=48000, channels=1))
    listener.send(dict(enumerate(chunked(voice(48000, 1000), 1920))))
    batches: list[bytes] = []
    feed = listener.track.open_feed(16000, 500, batches.append)
    feed.pump(ALL)
    assert feed.start_ms == 500
    live, again = listener.heard(), b"".join(batches)
    assert len(again) == 32 * 500
    assert again[32 * 5 :] == live[32 * 505 :]


def test_packets_nothing_played_are_counted() -> None:
    track = AudioTrack(TrackSettings(replay_ms=1000))
    track.restart(MONO_16K)
    for number in range(60):
        track.packet(number, number * 960, bytes(640), number * 0.02)
    assert (track.stats.unplayed, track.pending, track.stats.overflow_dropped_ms) == (10, 50, 200)


def test_what_waits_for_a_missing_packet_is_played_before_another_format() -> None:
    before, after = voice(16000, 100), voice(8000, 100, 3000)
    listener = Listener(MONO_16K)
    packets = dict(enumerate(chunked(before, 640)))
    del packets[3]
    listener.send(packets)
    listener.track.restart(PcmFormat(rate_hz=8000, channels=1))
    listener.send(dict(enumerate(chunked(after, 320), 900)), timed=False)
    heard = listener.heard()
    assert heard[: 32 * 100] == before[: 32 * 60] + bytes(640) + before[32 * 80 :]
    assert heard[32 * 100 :] == Resampler(8000, 16000).process(after)


def test_opus_and_pcm_may_follow_one_another() -> None:
    pcm, packets = voice(44100, 200), speech(10)
    opus = b"".join(map(Decoder(16000).decode, packets))
    resampled = Resampler(44100, 16000).process(pcm)
    listener = Listener(None)
    for _ in range(2):
        listener.track.restart()
        listener.send(dict(enumerate(packets)), timed=False)
        listener.track.restart(PcmFormat(rate_hz=44100, channels=1))
        listener.send(dict(enumerate(chunked(pcm, 1764))), timed=False)
    assert listener.heard() == (opus + resampled) * 2
    assert listener.track.stats.decoded == 40


def test_a_start_with_the_same_format_goes_on_without_a_seam() -> None:
    pcm = voice(11025, 400)
    chunks = chunked(pcm, 442)
    listener = Listener(PcmFormat(rate_hz=11025, channels=1))
    listener.send(dict(enumerate(chunks[:7])), timed=False)
    listener.track.restart(PcmFormat(rate_hz=11025, channels=1))
    listener.send(dict(enumerate(chunks[7:], 5000)), timed=False)
    assert listener.heard() == Resampler(11025, 16000).process(pcm)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "problem"),
    [
        (44000, 1, "l16 at 44000 Hz cannot be taken; sampleRate must be one of: 8000, 11025, "),
        (96000, 2, "l16 at 96000 Hz cannot be taken"),
        (48000, 9, "l16 has 1 to 8 channels, not 9"),
    ],
)
def test_a_format_that_cannot_be_taken_says_why(rate_hz: int, channels: int, problem: str) -> None:
    found = PcmFormat(rate_hz=rate_hz, channels=channels).problem
    assert found is not None
    assert found.startswith(problem)


@given(
    st.sampled_from(RATES_HZ),
    st.integers(1, 8),
    st.sampled_from([8000, 16000, 24000, 48000]),
    st.lists(
        st.tuples(
            st.integers(-3, 12),
            st.integers(-4000, 50_000) | st.none(),
            st.integers(0, 3000),
            st.booleans(),
        ),
        max_size=30,
    ),
)
@settings(deadline=None)
def test_any_schedule_of_packets_keeps_the_books(
    in_rate_hz: int,
    channels: int,
    rate_hz: int,
    schedule: list[tuple[int, int | None, int, bool]],
) -> None:
    listener = Listener(PcmFormat(rate_hz=in_rate_hz, channels=channels), rate_hz)
    track, now_s, number = listener.track, 0.0, 100
    for ahead, timestamp, size, to_opus in schedule:
        now_s += 0.03
        number += ahead
        if to_opus and ahead == 0:
            track.restart(PcmFormat(rate_hz=48000, channels=2) if size % 2 else None)
        track.packet(number, timestamp, bytes(size), now_s)
        track.tick(now_s + 0.02)
        stats = track.stats
        accounted = stats.decoded + stats.corrupt + stats.late + stats.duplicate + stats.empty
        assert stats.received == accounted + stats.unplayed + track.pending
    heard = listener.heard()
    stats = track.stats
    assert stats.lost == stats.recovered_fec + stats.concealed + stats.silenced + stats.skipped
    due = track.end_ms * rate_hz / 1000
    assert abs(len(heard) // 2 - due) <= 3 * (1 + len(schedule))


def test_no_silence_is_made_up_between_seconds_that_come_whole() -> None:
    track = AudioTrack(TrackSettings())
    track.restart(MONO_16K)
    track.expect(2000)
    for second in range(10):
        came_s = 100.0 + second + 0.3 * (second % 2)
        for part in range(10):
            at = (1000 * second + 100 * part) * 48
            track.packet(None, at, b"\1\0" * 1600, came_s)
        for tick in range(1, 33):
            track.tick(came_s + 0.04 * tick)
    assert (track.end_ms, track.stats.silence_ms) == (10_000, 0)
    track.tick(115.0)
    track.tick(115.04)
    assert track.stats.silence_ms == 2000
