"""A track and its feeds: what recognizers get, when, and what is counted."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import pytest

from _native.opus import BadArgument, Decoder
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack, Feed
from tests.audio.support.packets import silk, speech

ALL = math.inf


class Ear:
    """A recognizer's end of a feed."""

    def __init__(self, track: AudioTrack, rate_hz: int = 16000, from_ms: float = 0) -> None:
        self.batches: list[bytes] = []
        self.on_batch: Callable[[], None] = lambda: None
        self.rate_hz = rate_hz
        self.feed: Feed = track.open_feed(rate_hz, from_ms, self._hear)

    def _hear(self, batch: bytes) -> None:
        self.batches.append(batch)
        self.on_batch()

    @property
    def pcm(self) -> bytes:
        return b"".join(self.batches)

    @property
    def heard_ms(self) -> float:
        return len(self.pcm) * 1000 / (2 * self.rate_hz)

    @property
    def batches_ms(self) -> list[float]:
        return [len(batch) * 1000 / (2 * self.rate_hz) for batch in self.batches]


def send(track: AudioTrack, first: int, packets: list[bytes], now_s: float = 0.0) -> float:
    """Packets of 20 ms arrive at their pace, with a tick after each; returns the time after."""
    for number, payload in enumerate(packets, first):
        track.packet(number, number * 960, payload, now_s)
        track.tick(now_s)
        now_s += 0.02
    return now_s


def beat(track: AudioTrack, now_s: float, for_s: float) -> float:
    for _ in range(round(for_s / 0.02)):
        now_s += 0.02
        track.tick(now_s)
    return now_s


def alive() -> int:
    return sum(isinstance(found, AudioTrack | Feed) for found in gc.get_objects())


@pytest.fixture
def track() -> AudioTrack:
    return AudioTrack(TrackSettings())


def test_a_live_feed_gets_batches_as_packets_come(track: AudioTrack) -> None:
    ear = Ear(track)
    assert ear.feed.pump(1)
    packets = speech(14)
    send(track, 0, packets[:4])
    assert ear.batches == []
    send(track, 4, packets[4:])
    assert ear.batches_ms == [100, 100]
    track.finish()
    assert ear.batches_ms == [100, 100, 80]
    assert ear.pcm == b"".join(map(Decoder(16000).decode, packets))


def test_with_no_feed_packets_wait_undecoded(track: AudioTrack) -> None:
    send(track, 0, speech(50))
    assert (track.stats.decoded, track.pending, track.end_ms) == (0, 50, 1000)
    ear = Ear(track)
    assert ear.feed.pump(ALL)
    assert (track.stats.decoded, track.pending, ear.heard_ms) == (50, 0, 1000)


def test_a_replay_comes_in_slices_and_then_goes_on_live_without_a_seam(track: AudioTrack) -> None:
    packets = speech(100)
    now_s = send(track, 0, packets[:70])
    ear = Ear(track, 24000)
    slices = 0
    while not ear.feed.pump(300):
        slices += 1
        assert ear.heard_ms == 300 * slices
    assert slices == 4
    send(track, 70, packets[70:], now_s)
    track.finish()
    assert ear.pcm == b"".join(map(Decoder(24000).decode, packets))


def test_packets_that_come_between_two_slices_are_played_in_their_turn(track: AudioTrack) -> None:
    packets = speech(60)
    send(track, 0, packets[:30])
    ear = Ear(track)
    assert not ear.feed.pump(200)
    send(track, 30, packets[30:], 0.6)
    assert ear.heard_ms == 200
    assert ear.feed.pump(ALL)
    assert ear.pcm == b"".join(map(Decoder(16000).decode, packets))


@pytest.mark.parametrize("from_ms", [500, 515, 519.9])
def test_a_feed_begins_at_the_packet_that_holds_the_time_asked_for(
    track: AudioTrack, from_ms: float
) -> None:
    send(track, 0, speech(50))
    ear = Ear(track, from_ms=from_ms)
    assert ear.feed.pump(ALL)
    assert (ear.feed.start_ms, ear.feed.delivered_ms, ear.heard_ms) == (500, 1000, 500)
    assert ear.feed.audio_ms(0) == 500
    assert ear.feed.audio_ms(120) == 620


@pytest.mark.parametrize("from_ms", [-5.0, 0.0])
def test_a_feed_from_before_the_track_begins_with_it(track: AudioTrack, from_ms: float) -> None:
    send(track, 0, speech(5))
    assert Ear(track, from_ms=from_ms).feed.start_ms == 0


def test_a_feed_from_the_end_or_beyond_hears_only_what_is_new(track: AudioTrack) -> None:
    send(track, 0, speech(5))
    ear = Ear(track, from_ms=10_000)
    assert ear.feed.pump(ALL)
    assert (ear.feed.start_ms, ear.heard_ms) == (100, 0)
    send(track, 5, speech(10)[5:], 0.1)
    assert ear.heard_ms == 100


def test_a_paused_feed_gets_nothing_and_misses_nothing(track: AudioTrack) -> None:
    packets = speech(60)
    ear = Ear(track)
    ear.feed.pump(1)
    send(track, 0, packets[:12])
    ear.feed.pause()
    send(track, 12, packets[12:40], 0.24)
    assert (ear.heard_ms, ear.feed.delivered_ms) == (200, 200)
    assert ear.feed.pump(ALL)
    send(track, 40, packets[40:], 0.8)
    track.finish()
    assert ear.pcm == b"".join(map(Decoder(16000).decode, packets))
    assert track.stats.decoded == 60


def test_a_feed_paused_by_its_last_kept_batch_has_not_caught_up() -> None:
    track = AudioTrack(TrackSettings(max_gap_fill_ms=500, asr_batch_ms=1000))
    send(track, 0, speech(1))
    beat(track, 0.0, 1.0)  # until no more silence is made up: nothing will complete the batch
    ear = Ear(track)
    ear.on_batch = ear.feed.pause
    assert not ear.feed.pump(ALL)
    assert ear.heard_ms == track.end_ms
    send(track, 1, speech(2)[1:], 1.0)
    assert ear.feed.pump(ALL)
    track.finish()
    assert ear.heard_ms == track.end_ms


def test_a_feed_may_be_paused_from_inside_a_batch(track: AudioTrack) -> None:
    packets = speech(40)
    ear = Ear(track)
    ear.feed.pump(1)
    ear.on_batch = ear.feed.pause
    send(track, 0, packets)
    assert ear.heard_ms == 100
    assert not ear.feed.pump(ALL)
    assert ear.heard_ms == 200
    ear.on_batch = lambda: None
    assert ear.feed.pump(ALL)
    assert ear.pcm == b"".join(map(Decoder(16000).decode, packets))


def test_a_closed_feed_gets_nothing_more(track: AudioTrack) -> None:
    ear, other = Ear(track), Ear(track, 24000)
    ear.feed.pump(1)
    other.feed.pump(1)
    ear.on_batch = other.feed.close
    send(track, 0, speech(5))
    assert (ear.heard_ms, other.heard_ms) == (100, 0)
    ear.feed.close()
    ear.feed.close()
    send(track, 5, speech(20)[5:], 0.1)
    track.finish()
    assert ear.feed.pump(ALL)
    assert ear.heard_ms == 100


def test_a_feed_closed_while_it_catches_up_stops_there(track: AudioTrack) -> None:
    send(track, 0, speech(50))
    ear = Ear(track)
    ear.on_batch = ear.feed.close
    assert ear.feed.pump(ALL)
    assert ear.heard_ms == 100


def test_a_packet_is_counted_once_however_many_play_it(track: AudioTrack) -> None:
    ears = [Ear(track), Ear(track, 24000)]
    for ear in ears:
        ear.feed.pump(1)
    send(track, 0, speech(10))
    Ear(track, 8000).feed.pump(ALL)
    assert track.stats.decoded == 10
    assert ears[0].heard_ms == ears[1].heard_ms == 200


@pytest.mark.parametrize("until_ms", [500, 515])
def test_what_a_final_covers_is_forgotten(track: AudioTrack, until_ms: float) -> None:
    ear = Ear(track)
    ear.feed.pump(1)
    send(track, 0, speech(50))
    track.forget(until_ms)
    again = Ear(track, from_ms=0)
    assert again.feed.start_ms == 500
    track.forget(99_999)
    assert Ear(track, from_ms=0).feed.start_ms == 1000
    assert track.stats.overflow_dropped_ms == 0
    assert track.stats.unplayed == 0


def test_of_too_much_audio_the_oldest_is_dropped_and_counted() -> None:
    track = AudioTrack(TrackSettings(replay_ms=1000))
    send(track, 0, speech(60))
    assert (track.stats.unplayed, track.stats.overflow_dropped_ms) == (10, 200)
    assert track.pending == 50
    ear = Ear(track)
    assert ear.feed.pump(ALL)
    assert (ear.feed.start_ms, ear.heard_ms) == (200, 1000)


def test_audio_that_was_played_is_no_loss_when_it_makes_room() -> None:
    track = AudioTrack(TrackSettings(replay_ms=1000))
    ear = Ear(track)
    ear.feed.pump(1)
    send(track, 0, speech(60))
    assert (track.stats.unplayed, track.stats.overflow_dropped_ms) == (0, 0)
    assert Ear(track).feed.start_ms == 200


def test_a_feed_that_was_too_slow_goes_on_with_what_is_left_and_knows_the_time() -> None:
    track = AudioTrack(TrackSettings(replay_ms=1000))
    ear = Ear(track)
    ear.feed.pump(1)
    send(track, 0, speech(10))
    ear.feed.pause()
    send(track, 10, speech(80)[10:], 0.2)
    assert ear.feed.pump(ALL)
    assert ear.heard_ms == 1200
    assert ear.feed.audio_ms(100) == 100
    assert ear.feed.audio_ms(300) == 700
    assert (ear.feed.delivered_ms, track.stats.unplayed) == (1600, 20)
    assert track.stats.overflow_dropped_ms == 400


def test_a_partial_batch_is_handed_over_when_packets_stop_coming() -> None:
    track = AudioTrack(TrackSettings(asr_batch_ms=1000))
    ear = Ear(track)
    ear.feed.pump(1)
    now_s = send(track, 0, speech(10)) - 0.02
    beat(track, now_s, 0.12)
    assert ear.batches == []
    beat(track, now_s + 0.12, 0.06)
    assert ear.batches_ms == [200 + 140]


def test_a_partial_batch_is_handed_over_when_silence_may_not_be_made_up() -> None:
    track = AudioTrack(TrackSettings(max_gap_fill_ms=0))
    ear = Ear(track)
    ear.feed.pump(1)
    now_s = send(track, 0, speech(7))
    beat(track, now_s, 1)
    assert ear.batches_ms == [100, 40]


def test_all_made_up_silence_is_handed_over(track: AudioTrack) -> None:
    ear = Ear(track)
    ear.feed.pump(1)
    beat(track, send(track, 0, speech(7)), 10)
    assert ear.heard_ms == track.end_ms == 2140


def test_a_feed_that_comes_to_a_sleeping_track_gets_all_of_it() -> None:
    track = AudioTrack(TrackSettings(max_gap_fill_ms=0))
    beat(track, send(track, 0, speech(7)), 1)
    ear = Ear(track)
    assert ear.feed.pump(ALL)
    assert ear.heard_ms == 140


def test_made_up_silence_is_no_sign_of_life(track: AudioTrack) -> None:
    assert track.last_packet_s is None
    now_s = send(track, 0, speech(10), 5.0) - 0.02
    beat(track, now_s, 1)
    assert track.last_packet_s == pytest.approx(now_s)
    assert track.speech_since(199)
    assert not track.speech_since(200)
    assert track.end_ms > 1000


@pytest.mark.parametrize("dtx", [b"\x08", b"\x08\x00"])
@pytest.mark.parametrize("first", [10, 11], ids=["in order", "after a loss"])
def test_dtx_packets_are_a_sign_of_life_but_no_speech(
    track: AudioTrack, dtx: bytes, first: int
) -> None:
    now_s = send(track, first, [dtx], send(track, 0, speech(10)))
    track.finish()
    assert track.last_packet_s == pytest.approx(now_s - 0.02)
    assert not track.speech_since(200)


@pytest.mark.parametrize("payload", [b"", speech(1)[0]])
def test_late_doubled_and_empty_packets_are_no_sign_of_life(
    track: AudioTrack, payload: bytes
) -> None:
    now_s = send(track, 0, speech(10), 5.0)
    track.packet(3, 3 * 960, payload, now_s + 1)
    assert track.last_packet_s == pytest.approx(now_s - 0.02)


def test_a_track_whose_feeds_are_closed_leaves_nothing_for_the_garbage_collector() -> None:
    gc.collect()
    before = alive()
    gc.disable()
    try:
        track = AudioTrack(TrackSettings())
        ear = Ear(track)
        ear.feed.pump(1)
        send(track, 0, speech(10))
        ear.feed.close()
        del track, ear
        assert alive() == before
    finally:
        gc.enable()


def test_packets_are_played_batch_by_batch(track: AudioTrack) -> None:
    ear = Ear(track)
    ear.feed.pump(1)
    now_s = send(track, 0, speech(9))
    assert (track.stats.decoded, track.pending, ear.feed.delivered_ms) == (5, 4, 100)
    ear.feed.pause()
    send(track, 9, speech(10)[9:], now_s)
    assert not ear.feed.pump(0), "what had gathered is played by pumping"
    assert ear.feed.pump(100)
    assert ear.batches_ms == [100, 100]
    assert (track.stats.decoded, track.pending) == (10, 0)


def test_what_comes_beyond_a_batch_waits_for_the_next_one(track: AudioTrack) -> None:
    ear = Ear(track)
    ear.feed.pump(1)
    send(track, 0, speech(4))
    for payload in speech(12)[4:]:
        track.intake.ring.put_packet(payload, 960)
    track.play_due()
    assert ear.batches_ms == [100, 100]
    assert (track.stats.decoded, track.pending, ear.feed.delivered_ms) == (10, 2, 200)
    track.finish()
    assert ear.batches_ms == [100, 100, 40]


@pytest.mark.parametrize("ms", [20, 60, 120])
def test_the_longest_batch_and_the_shortest_memory_lose_nothing(ms: int) -> None:
    track = AudioTrack(TrackSettings(asr_batch_ms=1000, replay_ms=1000))
    ear = Ear(track)
    ear.feed.pump(1)
    for number in range(50):
        track.packet(number, number * ms * 48, silk(number, ms=ms), number * ms / 1000)
    track.finish()
    assert ear.heard_ms == 50 * ms
    assert track.stats.decoded == 50
    assert track.stats.overflow_dropped_ms == 0


def test_finish_plays_what_waits_for_a_missing_packet(track: AudioTrack) -> None:
    ear = Ear(track)
    ear.feed.pump(1)
    packets = speech(4)
    for number in (0, 1, 3):
        track.packet(number, number * 960, packets[number], 0)
    assert (track.end_ms, track.pending) == (40, 3), "two of a batch, one behind a gap"
    track.finish()
    assert (ear.heard_ms, track.stats.decoded, track.stats.lost, track.pending) == (80, 3, 1, 0)


def test_a_track_goes_on_after_finish(track: AudioTrack) -> None:
    ear = Ear(track)
    ear.feed.pump(1)
    send(track, 0, speech(3))
    track.finish()
    send(track, 3, speech(6)[3:], 0.06)
    track.finish()
    assert ear.pcm == b"".join(map(Decoder(16000).decode, speech(6)))


def test_a_start_for_a_running_track_lets_numbers_begin_anywhere(track: AudioTrack) -> None:
    send(track, 50, speech(10))
    track.restart()
    for number in range(10):
        track.packet(number, (60 + number) * 960, silk(number), 0.2)
    assert (track.end_ms, track.stats.late, track.stats.restarts) == (400, 0, 0)


def test_session_time_follows_the_media_timestamps(track: AudioTrack) -> None:
    packets = speech(20)
    for number, payload in enumerate(packets):
        pause = 48 * 60_000 if number >= 10 else 0
        track.packet(number, 48_000 + number * 960 + pause, payload, 0)
    assert track.end_ms == 400 + 2000
    assert track.timeline.map_ms(0) == 1000
    assert track.timeline.map_ms(2200) == 61_200


def test_nothing_to_do_is_done_before_the_first_packet(track: AudioTrack) -> None:
    track.tick(1e9)
    track.finish()
    track.restart()
    track.forget(100)
    assert (track.end_ms, track.pending, track.stats.received) == (0, 0, 0)


def test_a_rate_opus_does_not_know_is_refused_before_anything_is_played(
    track: AudioTrack,
) -> None:
    with pytest.raises(BadArgument, match="44100"):
        track.open_feed(44100, 0, lambda batch: None)
