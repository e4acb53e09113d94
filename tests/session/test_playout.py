"""Tracks play in turn, a slice at a time; those that come too late pass over their oldest audio."""

from __future__ import annotations

import asyncio
import time

from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.session.playout import KEPT_MS, LATE_S, SLICE_S, Playout
from tests.support.speech import speech_packets

PACKETS = speech_packets(50)


class FakeAudio:
    """Notes what it is told."""

    def __init__(self, takes_s: float = 0.0, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._takes_s = takes_s
        self._error = error

    def play_due(self) -> None:
        self.calls.append("play")
        until_s = time.perf_counter() + self._takes_s
        while time.perf_counter() < until_s:
            pass
        if self._error:
            raise self._error

    def shed(self, keep_ms: float) -> None:
        self.calls.append(f"shed all but {keep_ms:g}")


class Track:
    def __init__(self, audio: FakeAudio, *, ahead: bool = False) -> None:
        self.audio = audio
        self._ahead = ahead

    def is_ahead(self, now_s: float) -> bool:
        return self._ahead


async def test_all_play_and_the_event_loop_runs_between_slices() -> None:
    failures: list[object] = []
    playout = Playout(lambda track, error: failures.append(track))
    tracks = [Track(FakeAudio(takes_s=SLICE_S)) for _ in range(20)]
    turns = 0
    for track in tracks:
        playout.add(track)
        playout.add(track)
    while not all(track.audio.calls for track in tracks):
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 20
    assert all(track.audio.calls == ["play"] for track in tracks)
    assert failures == []


async def test_one_that_fails_is_reported_and_the_next_one_plays() -> None:
    failures: list[tuple[object, BaseException]] = []
    playout = Playout(lambda track, error: failures.append((track, error)))
    broken, sound = Track(FakeAudio(error=(fault := ValueError("x")))), Track(FakeAudio())
    playout.add(broken)
    playout.add(sound)
    while not sound.audio.calls:
        await asyncio.sleep(0)
    assert failures == [(broken, fault)]


async def test_one_that_waited_too_long_sheds_first() -> None:
    now_s = 0.0
    playout = Playout(lambda track, error: None, clock=lambda: now_s)
    late, prompt = Track(FakeAudio()), Track(FakeAudio())
    playout.add(late)
    now_s = LATE_S
    playout.add(prompt)
    now_s += 0.01
    while not prompt.audio.calls:
        await asyncio.sleep(0)
    assert late.audio.calls == [f"shed all but {KEPT_MS:g}", "play"]
    assert prompt.audio.calls == ["play"]


async def test_one_that_is_ahead_of_real_time_plays_at_once_and_sheds_nothing() -> None:
    now_s = 0.0
    playout = Playout(lambda track, error: None, clock=lambda: now_s)
    recording = Track(FakeAudio(), ahead=True)
    playout.add(recording)
    assert recording.audio.calls == ["play"]
    now_s = 2 * LATE_S
    playout.add(recording)
    assert recording.audio.calls == ["play", "play"]


def test_what_is_shed_is_counted_and_times_stay_right() -> None:
    """A recognizer's clock does not run through what it was not given; the track's does."""
    track, heard = AudioTrack(TrackSettings()), []
    feed = track.open_feed(16000, 0, heard.append)
    feed.pump(1)
    for number in range(5):
        track.packet(number, number * 960, PACKETS[number], number * 0.02)
    ring = track.intake.ring
    for payload in PACKETS[5:25]:
        ring.put_packet(payload, 960)
    track.shed(100)
    track.play_due()
    assert track.stats.shed_ms == 300
    assert sum(map(len, heard)) == 200 * 32
    assert feed.delivered_ms == track.end_ms == 500
    assert (feed.audio_ms(50), feed.audio_ms(150)) == (50, 450)
    stats = track.stats
    assert (stats.decoded, stats.unplayed, track.pending) == (10, 15, 0)


def test_nothing_is_shed_of_a_track_that_owes_little() -> None:
    track = AudioTrack(TrackSettings())
    track.open_feed(16000, 0, lambda batch: None).pump(1)
    for number in range(4):
        track.packet(number, number * 960, PACKETS[number], number * 0.02)
    track.shed(100)
    assert track.stats.shed_ms == 0
