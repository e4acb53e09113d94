"""What a stream costs: many sessions of real Opus speech through a running gateway.

    python -m bench.load [--streams 100] [--seconds 60] [--json] ...

A gateway alone on a core (on as many as it has workers, if there are so many); a client that sends
each tag's packets every 20 ms, and a stand-in for the recognizer's service, share another. Printed
are the workers' CPU per second of stream, what the gateway adds between the service's answer and
the client, how long after its audio a final comes, the memory per stream, and in the same run what
libopus alone costs for the same packets.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import msgspec
import uvloop

from bench.load_bed import PROVIDERS, BedOptions
from bench.load_run import Delays, Load, Options, measure

BEHIND_MS = 500
"""Embedded recognizers need less; a worker whose finals take longer has not decoded what came."""


def parse(argv: Sequence[str] | None = None) -> tuple[Options, bool]:
    """What to do, and whether to print JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--streams", type=int, help="in all; default: --sessions times --tags")
    add("--sessions", type=int, default=20)
    add("--tags", type=int, default=5, help="of each session")
    add("--seconds", type=float, default=60, help="of the measured window")
    add("--settle", type=float, default=5, help="seconds of load before that")
    add("--workers", type=int, default=1)
    add("--provider", choices=PROVIDERS, default="openai", help="deepgram is handed Opus")
    add("--loss", type=float, default=0, metavar="PERCENT", help="of packets lost, and of swapped")
    add("--tls", action="store_true", help="wss, with a certificate made for the run")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--flood", action="store_true", help="as fast as it is taken")
    choice.add_argument(
        "--cpu", type=float, metavar="PERCENT", help="as many streams as make a worker so busy"
    )
    add("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    options = Options(
        bed=BedOptions(
            provider=args.provider,
            workers=args.workers,
            tls=args.tls,
            loss=args.loss / 100,
            at_any_pace=args.flood,
        ),
        streams=args.streams or args.sessions * args.tags,
        tags=args.tags,
        seconds=args.seconds,
        settle_s=args.settle,
        cpu_percent=args.cpu,
    )
    return options, args.json


def table(load: Load) -> str:
    """The figures for a person."""
    how = [f"{load.workers} worker{'s' * (load.workers > 1)}", load.provider]
    how += ["TLS"] * load.tls + ["flood"] * load.flood
    busy = ", ".join(f"{percent:.0f} %" for percent in load.worker_cpu_percent)
    rows = [
        ("streams", f"{load.streams} for {load.seconds:.0f} s ({', '.join(how)})"),
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
        (
            "real time per core",
            f"{load.streams_per_core:.0f} x; workers busy {busy} of the time, kept waiting for a"
            f" core {load.waited_percent:.0f} %",
        ),
        ("added latency", _delays(load.delay)),
        ("end of audio to final", _delays(load.lag)),
        (
            "memory per tag",
            f"{load.pss_kb_per_tag:.1f} kB, of which the packets since the last final"
            f" {load.held_kb_per_tag:.1f} kB (idle worker {load.idle_pss_kb / 1024:.1f} MB)",
        ),
    ]
    if load.loss_percent:
        gone = load.packets_due - load.packets_sent
        rows.append(
            (
                "lost, reordered",
                f"{gone} of {load.packets_due} never sent, {load.packets_lost} missed by the"
                f" gateway; {load.packets_reordered} put in order",
            )
        )
    is_behind = load.lag.p50_ms is not None and load.lag.p50_ms > BEHIND_MS
    if is_behind or load.dropped_ms or load.shed_ms or load.slowed or load.unsent_kb >= 1:
        rows.append(
            (
                "more than it can take",
                f"{load.shed_ms / 1000:.1f} s of audio shed,"
                f" {load.dropped_ms / 1000:.1f} s dropped, connections slowed"
                f" {load.slowed} times, {load.unsent_kb:.0f} kB unsent at the end"
                + ", audio left behind: the CPU is that of less than was sent"
                * is_behind,
            )
        )
    return "\n".join(f"{name:<24}{value}" for name, value in rows)


def _delays(delays: Delays) -> str:
    if not delays.count:
        return "none was timed"
    return (
        f"p50 {delays.p50_ms:.2f} ms, p95 {delays.p95_ms:.2f} ms, p99 {delays.p99_ms:.2f} ms,"
        f" max {delays.max_ms:.2f} ms over {delays.count} results"
    )


def main() -> int:
    options, as_json = parse()
    if not hasattr(os, "sched_setaffinity"):
        print("bench.load needs Linux: it pins processes and reads /proc", file=sys.stderr)
        return 2
    load = uvloop.run(measure(options))
    print(msgspec.json.encode(load).decode() if as_json else table(load))
    if load.packets_received != load.packets_sent:
        print("FAILED: not every packet arrived", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
