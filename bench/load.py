"""What a stream costs: many sessions of real Opus speech through a running gateway.

    python -m bench.load [--sessions 20] [--tags 5] [--seconds 60] [--json]

One gateway with one worker and the OpenAI recognizer, alone on a core; a client that sends
each tag's packets every 20 ms, and a stand-in for the recognizer, share another. Printed are the
worker's CPU per second of stream, what the gateway adds between the recognizer's answer and the
client, its memory per stream, and in the same run what libopus alone costs for the same packets.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Sequence

import msgspec
import uvloop

from _native.opus import Decoder
from bench.load_bed import cores, pin_all, pss_kb, speech_packets, stand_in
from bench.load_client import LoadClient
from bench.load_upstream import INTERIM_S, INTERIMS_PER_FINAL
from edge.audio.steps import Step, StepKind
from edge.demo.gateway import GatewayProcess, cpu_s, running
from edge.demo.latency import percentile

RATE_HZ = 24000
PACKETS_PER_S = 50
SETTLE_S = 5.0
FLOOR_DECODERS = 20
FLOOR_ROUNDS = 40
UPSTREAM_FINAL_S = INTERIM_S * INTERIMS_PER_FINAL
QUERY = "sendBack=true&sendBackInterim=true&provider=openai"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured."""

    streams: int
    seconds: float
    cpu_ms_per_stream_s: float
    """Of the worker, in the steady window."""
    streams_per_core: float
    floor_ms_per_stream_s: float
    """libopus alone, the same packets, 20 interleaved decoders at 24 kHz."""
    floor_ratio: float
    delay_p50_ms: float
    delay_p95_ms: float
    delay_p99_ms: float
    delay_max_ms: float
    results: int
    pss_kb_per_tag: float
    held_kb_per_tag: float
    """Of which the packets since the last final, which a replay would need: a mean of 2 s."""
    idlepss_kb: int
    packets_sent: int
    packets_received: int
    client_late_ms: float


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--tags", type=int, default=5, help="of each session")
    parser.add_argument("--seconds", type=float, default=60, help="of the measured window")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


async def measure(sessions: int, tags: int, seconds: float) -> Load:
    """Run one load."""
    gateway_core, other_core = cores()
    packets = speech_packets()
    with stand_in(other_core) as upstream:
        environment = {
            **os.environ,
            "OPENAI_API_KEY": "bench",
            "OPENAI_REALTIME_URL": f"ws://127.0.0.1:{upstream.port}/v1/realtime",
        }
        os.sched_setaffinity(0, {gateway_core})
        async with running(workers=1, environment=environment) as gateway:
            pin_all(os.getpid(), other_core)
            return await _run(gateway, gateway_core, packets, sessions, tags, seconds)


async def _run(
    gateway: GatewayProcess,
    gateway_core: int,
    packets: list[bytes],
    sessions: int,
    tags: int,
    seconds: float,
) -> Load:
    # One session first, so that what a worker loads once is not charged to the streams.
    warm_up = LoadClient(gateway.port, packets)
    await warm_up.open(sessions=1, tags=5, query=QUERY)
    await warm_up.stream(4)
    await warm_up.close()
    await asyncio.sleep(2)
    idle = {pid: pss_kb(pid) for pid in gateway.pids()}
    counted = (await gateway.metrics())["otp_client_audio_chunks_total"]

    client = LoadClient(gateway.port, packets)
    await client.open(sessions=sessions, tags=tags, query=QUERY)
    await client.stream(SETTLE_S)
    gc.collect()
    gc.freeze()
    began_s = time.monotonic()
    before = {pid: cpu_s(pid) for pid in idle}
    await client.stream(seconds)
    used = {pid: cpu_s(pid) - before[pid] for pid in idle}
    ended_s = time.monotonic()
    worker = max(used, key=lambda pid: used[pid])
    grown_kb = pss_kb(worker) - idle[worker]
    await client.close()
    await asyncio.sleep(1.5)
    received = (await gateway.metrics())["otp_client_audio_chunks_total"] - counted

    floor_ms = floor_us(packets, gateway_core) * PACKETS_PER_S / 1000
    streams = sessions * tags
    cpu_ms = used[worker] * 1000 / (streams * (ended_s - began_s))
    delays_ms = [each.delay_ms for each in client.arrivals if began_s <= each.at_s <= ended_s]
    return Load(
        streams=streams,
        seconds=ended_s - began_s,
        cpu_ms_per_stream_s=cpu_ms,
        streams_per_core=1000 / cpu_ms if cpu_ms else 0.0,
        floor_ms_per_stream_s=floor_ms,
        floor_ratio=cpu_ms / floor_ms,
        delay_p50_ms=percentile(delays_ms, 0.5),
        delay_p95_ms=percentile(delays_ms, 0.95),
        delay_p99_ms=percentile(delays_ms, 0.99),
        delay_max_ms=max(delays_ms, default=0.0),
        results=len(delays_ms),
        pss_kb_per_tag=grown_kb / streams,
        held_kb_per_tag=_held_kb(packets),
        idlepss_kb=idle[worker],
        packets_sent=client.sent,
        packets_received=received,
        client_late_ms=client.latest_ms,
    )


def floor_us(packets: Sequence[bytes], core: int) -> float:
    """CPU microseconds libopus needs for a packet at 24 kHz; median of the rounds.

    The decoders take turns packet by packet, as streams do, so that none finds its state in the
    nearest cache. ``decode_into`` adds some 0.3 us to the C call.
    """
    previous = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        decoders = [Decoder(RATE_HZ) for _ in range(FLOOR_DECODERS)]
        pcm = bytearray(2 * RATE_HZ * 120 // 1000)
        rounds_us = []
        for number in range(FLOOR_ROUNDS):
            began_ns = time.thread_time_ns()
            for step in range(PACKETS_PER_S):
                for index, decoder in enumerate(decoders):
                    at = (7 * index + number * PACKETS_PER_S + step) % len(packets)
                    decoder.decode_into(packets[at], pcm)
            spent_us = (time.thread_time_ns() - began_ns) / 1000
            rounds_us.append(spent_us / (FLOOR_DECODERS * PACKETS_PER_S))
        return statistics.median(rounds_us)
    finally:
        os.sched_setaffinity(0, previous)


def _held_kb(packets: Sequence[bytes]) -> float:
    """What the steps of the packets since the last final weigh, halfway between two finals."""
    step = sys.getsizeof(Step(StepKind.PACKET, 960, b""))
    sizes = [sys.getsizeof(packet) + step for packet in packets]
    return sum(sizes) / len(sizes) * PACKETS_PER_S * UPSTREAM_FINAL_S / 2 / 1024


def table(load: Load) -> str:
    """The figures for a person."""
    rows = (
        ("streams", f"{load.streams} for {load.seconds:.0f} s"),
        (
            "packets",
            f"{load.packets_sent} sent, {load.packets_received} received"
            f" (the client was up to {load.client_late_ms:.1f} ms behind)",
        ),
        (
            "CPU per stream-second",
            f"{load.cpu_ms_per_stream_s:.2f} ms = {load.floor_ratio:.2f} x the floor",
        ),
        ("libopus floor", f"{load.floor_ms_per_stream_s:.2f} ms"),
        ("streams per core", f"{load.streams_per_core:.0f}"),
        (
            "added latency",
            f"p50 {load.delay_p50_ms:.2f} ms, p95 {load.delay_p95_ms:.2f} ms,"
            f" p99 {load.delay_p99_ms:.2f} ms, max {load.delay_max_ms:.2f} ms"
            f" over {load.results} results",
        ),
        (
            "memory per tag",
            f"{load.pss_kb_per_tag:.1f} kB, of which the packets since the last final"
            f" {load.held_kb_per_tag:.1f} kB (idle worker {load.idlepss_kb / 1024:.1f} MB)",
        ),
    )
    return "\n".join(f"{name:<24}{value}" for name, value in rows)


def main() -> int:
    args = parse()
    if not hasattr(os, "sched_setaffinity"):
        print("bench.load needs Linux: it pins processes and reads /proc", file=sys.stderr)
        return 2
    load = uvloop.run(measure(args.sessions, args.tags, args.seconds))
    print(msgspec.json.encode(load).decode() if args.json else table(load))
    if load.packets_received != load.packets_sent:
        print("FAILED: not every packet arrived", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
