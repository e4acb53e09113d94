"""Every kind of load runs, for a second, and counts what it sent. No figure is judged here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from bench.load_run import Load, tags_of_sessions
from bench.load_soak import FLAT_PERCENT, FULL_LENGTH_S, Soak, flatness

RUNS = {
    "loss and TLS": ("load", "--streams", "6", "--loss", "10", "--tls"),
    "flood": ("load", "--streams", "4", "--flood", "--workers", "2"),
    "Opus handed on": ("load", "--streams", "4", "--provider", "deepgram"),
    "no recognizer": ("load", "--sessions", "2", "--tags", "2", "--provider", "dummy"),
    "soak": ("load_soak", "--minutes", "0.06"),
}
QUICK = {"load": ("--seconds", "1", "--settle", "0.5", "--json"), "load_soak": ("--json",)}


@pytest.fixture(scope="module")
def printed() -> Iterator[Mapping[str, bytes]]:
    """What each run prints; they run side by side."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"bench.{arguments[0]}", *arguments[1:], *QUICK[arguments[0]]],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        for name, arguments in RUNS.items()
    }
    try:
        yield {name: process.communicate(timeout=50)[0] for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()


def load_of(printed: Mapping[str, bytes], name: str) -> Load:
    load = msgspec.json.decode(printed[name], type=Load)
    assert load.packets_sent == load.packets_received > 0
    assert load.cpu_ms_per_stream_s > 0
    return load


def test_lost_and_reordered_packets_are_told_apart(printed: Mapping[str, bytes]) -> None:
    load = load_of(printed, "loss and TLS")
    assert load.tls
    assert 0 < load.packets_lost <= load.packets_due - load.packets_sent
    assert load.packets_reordered > 0
    assert load.delay.count > 0


def test_a_flood_sends_more_than_speech_would(printed: Mapping[str, bytes]) -> None:
    load = load_of(printed, "flood")
    assert load.audio_s > 2 * load.streams * load.seconds
    assert len(load.worker_cpu_percent) == 2


def test_results_come_when_packets_are_handed_on(printed: Mapping[str, bytes]) -> None:
    assert load_of(printed, "Opus handed on").delay.count > 0


def test_a_load_without_results_is_measured_too(printed: Mapping[str, bytes]) -> None:
    load = load_of(printed, "no recognizer")
    assert load.streams == 4
    assert load.delay.p99_ms is None


def test_a_soak_leaves_nothing_behind(printed: Mapping[str, bytes]) -> None:
    soak = msgspec.json.decode(printed["soak"], type=Soak)
    assert soak.before == soak.after
    assert soak.sessions > 20
    assert soak.recognizer_connections == soak.tags > 100
    assert soak.cut == 0


def test_streams_are_shared_out_to_sessions() -> None:
    assert tags_of_sessions(12, 5) == [5, 5, 2]
    assert tags_of_sessions(10, 5) == [5, 5]
    assert tags_of_sessions(3, 5) == [3]


@pytest.mark.parametrize(("grown_percent", "is_flat"), [(0.0, True), (1.5, True), (3.0, False)])
def test_memory_that_grows_steadily_is_found(grown_percent: float, is_flat: bool) -> None:
    """The warm-up does not count; a rise over the rest of the time does."""
    samples = [
        (float(at_s), 20_000.0 if at_s < 170 else 50_000 * (1 + grown_percent / 100 * at_s / 1800))
        for at_s in range(0, 1800, 5)
    ]
    figures = flatness(samples, FULL_LENGTH_S)
    found = max(abs(figures["last_percent"]), abs(figures["trend_percent"]))
    assert (found <= FLAT_PERCENT) is is_flat
