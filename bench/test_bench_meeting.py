"""The loads of meetings run, for a moment, and count what they sent. No figure is judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from bench.meeting import MeetingLoad
from bench.meeting_growth import Growth


def printed(module: str, *arguments: str) -> bytes:
    command = [sys.executable, "-m", f"bench.{module}", *arguments, "--json"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], timeout=50, check=False
    )
    return done.stdout


def test_acks_and_polls_of_many_meetings_are_timed() -> None:
    answer = printed("meeting", "--sessions", "4", "--seconds", "2", "--settle", "0.5")
    load = msgspec.json.decode(answer, type=MeetingLoad)
    assert load.chunks >= 4 * 2
    assert 0 < load.p50_ms <= load.p99_ms <= load.max_ms
    assert load.polls >= 4 * 6


def test_what_is_written_early_and_late_is_counted() -> None:
    answer = printed("meeting_growth", "--late", "30", "--over", "6")
    growth = msgspec.json.decode(answer, type=Growth)
    assert growth.chunk.early_bytes > 32_000
    assert growth.utterance.early_bytes > 100
