"""One load, measured: what ``bench.load`` prints."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import opus_floor
from bench.load_bed import Bed, BedOptions, bed, pss_kb, waited_s
from bench.load_client import FRAME_MS, LoadClient
from bench.load_vendors import INTERIM_S, INTERIMS_PER_FINAL
from edge.audio.steps import Step, StepKind
from edge.demo.gateway import cpu_s
from edge.demo.latency import percentile

RATE_HZ = 24000
PACKETS_PER_S = 50
FLOOR_DECODERS = 20
FLOOR_ROUNDS = 40
UPSTREAM_FINAL_S = INTERIM_S * INTERIMS_PER_FINAL
TRIAL_STREAMS = 100
TRIAL_S = 8.0
TRIALS = 2


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to do."""

    bed: BedOptions = BedOptions()
    streams: int = 100
    tags: int = 5
    """Of each session; the last may have fewer."""
    seconds: float = 60.0
    """Of the measured window."""
    settle_s: float = 5.0
    """Before it."""
    cpu_percent: float | None = None
    """Choose ``streams`` so that each worker uses about so much of a core."""


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of times in milliseconds; None when nothing was timed."""

    count: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured."""

    provider: str
    workers: int
    tls: bool
    flood: bool
    loss_percent: float
    streams: int
    seconds: float
    audio_s: float
    """Speech that was due in the window; in a flood, that was sent in all."""
    cpu_ms_per_stream_s: float
    """Of all workers, for a second of ``audio_s``."""
    streams_per_core: float
    """How often as fast as speech a core of the workers is."""
    worker_cpu_percent: list[float]
    """Of a core, each worker."""
    waited_percent: float
    """Of the time, in which other programs kept the workers from running; their mean."""
    floor_ms_per_stream_s: float
    """libopus alone, the same packets, 20 interleaved decoders at 24 kHz."""
    floor_ratio: float
    delay: Delays
    """Between the stand-in's answer and the client."""
    lag: Delays
    """Between the last audio of an utterance and its final: batches and all waiting."""
    pss_kb_per_tag: float
    held_kb_per_tag: float
    """Of which the packets since the last final, which a replay would need: a mean of 2 s."""
    idle_pss_kb: float
    """Of a worker."""
    packets_due: int
    packets_sent: int
    packets_received: int
    packets_lost: int
    """As the gateway counts them."""
    packets_reordered: int
    dropped_ms: int
    """Audio that no recognizer took in time."""
    shed_ms: int
    """Audio that the gateway had no time to decode."""
    slowed: int
    """Times a connection was read more slowly."""
    unsent_kb: float
    """What the gateway had not taken when the window ended."""
    client_late_ms: float


async def measure(options: Options) -> Load:
    """Run one load."""
    async with bed(options.bed) as place:
        # What a worker loads once is not charged to the streams.
        await place.warm_up(min(4.0, options.seconds))
        await asyncio.sleep(1.5)
        streams = options.streams
        if options.cpu_percent is not None:
            streams = await _find_streams(place, options, options.cpu_percent)
        return await _run(place, msgspec.structs.replace(options, streams=streams))


async def _find_streams(place: Bed, options: Options, cpu_percent: float) -> int:
    """How many streams make a worker that busy; an estimate from shorter runs."""
    workers = len(place.workers)
    streams = TRIAL_STREAMS * workers
    for _ in range(TRIALS):
        trial = msgspec.structs.replace(options, streams=streams, seconds=TRIAL_S)
        load = await _run(place, trial)
        busy_percent = sum(load.worker_cpu_percent) / workers
        streams = max(1, round(streams * cpu_percent / max(busy_percent, 0.1)))
    return streams


class _Window(msgspec.Struct):
    """What the workers used between its making and ``close``."""

    pids: list[int]
    began_s: float
    before: list[tuple[float, float]]
    took_s: float = 0.0
    used_s: list[float] = []
    waited_percent: float = 0.0

    @classmethod
    def open(cls, pids: list[int]) -> _Window:
        return cls(pids, time.monotonic(), [(cpu_s(pid), waited_s(pid)) for pid in pids])

    def close(self) -> None:
        self.took_s = time.monotonic() - self.began_s
        pairs = list(zip(self.pids, self.before, strict=True))
        self.used_s = [cpu_s(pid) - used for pid, (used, _) in pairs]
        waited = sum(waited_s(pid) - waited for pid, (_, waited) in pairs)
        self.waited_percent = 100 * waited / len(pairs) / self.took_s


async def _run(place: Bed, options: Options) -> Load:
    gateway, workers = place.gateway, place.workers
    idle_kb = [pss_kb(pid) for pid in workers]
    counted = await gateway.metrics()
    client = place.client()
    await client.open(tags_of_sessions(options.streams, options.tags), options.bed.query)
    if not options.bed.at_any_pace:
        await client.stream(options.settle_s)
    gc.collect()
    gc.freeze()
    window = _Window.open(workers)
    if options.bed.at_any_pace:
        await client.flood(options.seconds)
    else:
        await client.stream(options.seconds)
        window.close()
    grown_kb = sum(pss_kb(pid) for pid in workers) - sum(idle_kb)
    unsent_kb = client.unsent_bytes / 1024
    await client.close()
    if options.bed.at_any_pace:
        # What the tracks kept for recognizers that were behind had to be decoded, too.
        window.close()
    await asyncio.sleep(1.5)
    gained = await gateway.metrics()
    gained.subtract(counted)
    return Load(
        pss_kb_per_tag=grown_kb / options.streams,
        held_kb_per_tag=_held_kb(place.packets),
        idle_pss_kb=sum(idle_kb) / len(idle_kb),
        unsent_kb=unsent_kb,
        **_setting(options, len(workers)),
        **_costs(place, options, client, window),
        **_counts(client, gained),
    )


def _setting(options: Options, workers: int) -> dict[str, Any]:
    return {
        "provider": options.bed.provider,
        "workers": workers,
        "tls": options.bed.tls,
        "flood": options.bed.at_any_pace,
        "loss_percent": 100 * options.bed.loss,
        "streams": options.streams,
    }


def _costs(place: Bed, options: Options, client: LoadClient, window: _Window) -> dict[str, Any]:
    flood, took_s = options.bed.at_any_pace, window.took_s
    floor_ms = floor_us(place.packets, place.core) * PACKETS_PER_S / 1000
    audio_s = client.due * FRAME_MS / 1000 if flood else options.streams * took_s
    cpu_ms = sum(window.used_s) * 1000 / audio_s
    until_s = window.began_s + took_s
    arrivals = [each for each in client.arrivals if window.began_s <= each.at_s <= until_s]
    return {
        "seconds": took_s,
        "audio_s": audio_s,
        "cpu_ms_per_stream_s": cpu_ms,
        "streams_per_core": 1000 / cpu_ms if cpu_ms else 0.0,
        "worker_cpu_percent": [100 * used_s / took_s for used_s in window.used_s],
        "waited_percent": window.waited_percent,
        "floor_ms_per_stream_s": floor_ms,
        "floor_ratio": cpu_ms / floor_ms,
        "delay": _delays(each.delay_ms for each in arrivals),
        "lag": _delays(None if flood else each.lag_ms for each in arrivals),
        "client_late_ms": client.latest_ms,
    }


def _counts(client: LoadClient, gained: Counter[str]) -> dict[str, int]:
    return {
        "packets_due": client.due,
        "packets_sent": client.sent,
        "packets_received": gained["otp_client_audio_chunks_total"],
        "packets_lost": gained["edgescribe_lost_packets_total/lost"],
        "packets_reordered": gained["edgescribe_reordered_packets_total"],
        "dropped_ms": gained["edgescribe_overflow_dropped_milliseconds_total"],
        "shed_ms": gained["edgescribe_audio_shed_milliseconds_total"],
        "slowed": gained["edgescribe_connections_slowed_total"],
    }


def tags_of_sessions(streams: int, tags: int) -> list[int]:
    """How many tags each session has, for so many streams."""
    full, rest = divmod(streams, tags)
    return [tags] * full + [rest] * (rest > 0)


def _delays(values_ms: Iterable[float | None]) -> Delays:
    known_ms = [value for value in values_ms if value is not None]
    if not known_ms:
        return Delays(count=0, p50_ms=None, p95_ms=None, p99_ms=None, max_ms=None)
    return Delays(
        count=len(known_ms),
        p50_ms=percentile(known_ms, 0.5),
        p95_ms=percentile(known_ms, 0.95),
        p99_ms=percentile(known_ms, 0.99),
        max_ms=max(known_ms),
    )


def floor_us(packets: Sequence[bytes], core: int) -> float:
    """CPU microseconds ``opus_decode`` needs for a packet at 24 kHz; median of the rounds.

    The decoders take turns packet by packet, as streams do, so that none finds its state in the
    nearest cache. Called from C: nothing else is in it.
    """
    previous = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with tempfile.TemporaryDirectory() as folder:
            floor = opus_floor.build(Path(folder))
        decoders = opus_floor.FloorDecoders(floor, FLOOR_DECODERS, RATE_HZ, packets)
        rounds_us = []
        for number in range(FLOOR_ROUNDS):
            began_ns = time.thread_time_ns()
            decoders.decode(number * PACKETS_PER_S, PACKETS_PER_S)
            spent_us = (time.thread_time_ns() - began_ns) / 1000
            rounds_us.append(spent_us / (FLOOR_DECODERS * PACKETS_PER_S))
        decoders.close()
        return statistics.median(rounds_us)
    finally:
        os.sched_setaffinity(0, previous)


def _held_kb(packets: Sequence[bytes]) -> float:
    """What the steps of the packets since the last final weigh, halfway between two finals."""
    step = sys.getsizeof(Step(StepKind.PACKET, 960, b""))
    sizes = [sys.getsizeof(packet) + step for packet in packets]
    return sum(sizes) / len(sizes) * PACKETS_PER_S * UPSTREAM_FINAL_S / 2 / 1024
