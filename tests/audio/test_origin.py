"""A sender that comes back over another connection: the session's clock and the audio go on."""

from __future__ import annotations

import pytest

from edge.audio.origin import MediaOrigin, SessionTime
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from tests.audio.support.packets import speech

GAP_FILL_MS = 2000


def send(track: AudioTrack, chunk: int, from_ms: int, packets: list[bytes], now_s: float) -> float:
    """Packets of 20 ms at their pace; returns the time after them."""
    for number, payload in enumerate(packets):
        track.packet(chunk + number, (from_ms + 20 * number) * 48, payload, now_s)
        track.tick(now_s)
        now_s += 0.02
    return now_s


def away(track: AudioTrack, now_s: float, for_s: float) -> float:
    for _ in range(round(for_s / 0.02)):
        now_s += 0.02
        track.tick(now_s)
    return now_s


def rejoin(track: AudioTrack, before: MediaOrigin, now_s: float) -> MediaOrigin:
    clock_ms = track.session_now_ms(now_s)
    assert clock_ms is not None
    heard_ms = track.timeline.map_ms(track.end_ms)
    origin = MediaOrigin(before, SessionTime(heard_ms, clock_ms, now_s))
    track.rejoin(origin)
    return origin


@pytest.mark.parametrize("away_s", [0.1, 1.0, 12.0])
@pytest.mark.parametrize("base", ["kept", "from zero"])
def test_times_after_a_return_are_those_of_the_wall_clock(away_s: float, base: str) -> None:
    first = MediaOrigin()
    track = AudioTrack(TrackSettings(max_gap_fill_ms=GAP_FILL_MS), first)
    now_s = send(track, 500, 10_000, speech(50), 0.0)
    assert track.timeline.map_ms(track.end_ms) == 11_000
    now_s = away(track, now_s, away_s)
    second = rejoin(track, first, now_s)
    passed_ms = round(1000 * away_s)
    for _ in range(2):  # a second return, from where the first left it
        kept_ms = round(track.session_now_ms(now_s) or 0) - 20
        from_ms = kept_ms if base == "kept" else 0
        now_s = send(track, 7, from_ms, speech(50), now_s)
        assert track.timeline.map_ms(track.end_ms) == pytest.approx(kept_ms + 1000, abs=25)
        second = rejoin(track, second, now_s)
    assert track.timeline.map_ms(track.end_ms) == pytest.approx(13_000 + passed_ms, abs=60)


def test_time_away_becomes_silence_within_the_bound_and_never_more() -> None:
    origin = MediaOrigin()
    track = AudioTrack(TrackSettings(max_gap_fill_ms=GAP_FILL_MS), origin)
    now_s = send(track, 0, 0, speech(50), 0.0)
    now_s = away(track, now_s, 60.0)
    assert track.end_ms == 1000 + GAP_FILL_MS
    rejoin(track, origin, now_s)
    send(track, 0, 0, speech(50), now_s)
    assert track.end_ms == 2000 + GAP_FILL_MS
    assert track.timeline.map_ms(track.end_ms) == pytest.approx(62_000, abs=45)


def test_numbers_may_start_anywhere_and_nothing_is_taken_as_lost_or_late() -> None:
    origin = MediaOrigin()
    track = AudioTrack(TrackSettings(), origin)
    now_s = send(track, 40_000, 0, speech(20), 0.0)
    rejoin(track, origin, now_s)
    send(track, 3, 0, speech(20), now_s)
    stats = track.stats
    assert (stats.lost, stats.late, stats.duplicate) == (0, 0, 0)
    assert track.end_ms == pytest.approx(800, abs=25)


def test_tags_of_one_connection_share_its_time_base() -> None:
    origin = MediaOrigin()
    one, two = AudioTrack(TrackSettings(), origin), AudioTrack(TrackSettings(), origin)
    now_s = send(one, 0, 30_000, speech(10), 0.0)
    send(two, 0, 30_000, speech(10), 0.0)
    second = rejoin(one, origin, now_s + 5.0)
    two.rejoin(second)
    send(one, 0, 100, speech(10), now_s + 5.0)
    send(two, 0, 600, speech(10), now_s + 5.5)
    apart_ms = two.timeline.map_ms(two.end_ms) - one.timeline.map_ms(one.end_ms)
    assert apart_ms == pytest.approx(500, abs=5)


def test_before_any_packet_there_is_no_clock_and_timestamps_set_it() -> None:
    track = AudioTrack(TrackSettings())
    assert track.session_now_ms(1.0) is None
    track.rejoin(MediaOrigin(MediaOrigin()))
    send(track, 0, 5_000, speech(5), 1.0)
    assert track.timeline.map_ms(track.end_ms) == 5_100
