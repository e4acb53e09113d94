"""``python -m tests.asr.upstream_faults``: faults at random moments of talks, and words counted.

A table by kind and, at the end, a line with the sums; it fails if a word was lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

import uvloop

from edge.logs import configure
from tests.asr.support.faults import KINDS, Outcome, Vendor, disturbed
from tests.asr.support.vendors import VENDORS

AT_ONCE = 6


async def run(
    vendor: Vendor, backup: Vendor, kinds: Sequence[str], moments: int, at_once: int
) -> list[Outcome]:
    """Inject faults of these kinds at so many moments each."""
    turnstile = asyncio.Semaphore(at_once)

    async def one(kind: str, seed: int) -> Outcome:
        async with turnstile:
            return await disturbed(vendor, backup, kind, seed)

    return await asyncio.gather(*(one(kind, seed) for seed in range(moments) for kind in kinds))


def table(outcomes: Sequence[Outcome]) -> str:
    """By kind: faults, words, connections of a talk, seconds to the next connection."""
    lines = [
        f"{'fault':<22}{'runs':>6}{'lost':>6}{'doubled':>9}{'conns':>7}{'p50 s':>8}{'p95 s':>8}"
    ]
    for kind in dict.fromkeys(each.kind for each in outcomes):
        mine = [each for each in outcomes if each.kind == kind]
        times = sorted(each.recovery_s for each in mine if each.recovery_s is not None)
        p50 = f"{statistics.median(times):.3f}" if times else "-"
        p95 = f"{times[int(len(times) * 0.95) - 1]:.3f}" if times else "-"
        connections = statistics.mean(each.connections for each in mine)
        lines.append(
            f"{kind:<22}{len(mine):>6}{sum(each.lost for each in mine):>6}"
            f"{sum(each.doubled for each in mine):>9}{connections:>7.1f}{p50:>8}{p95:>8}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50, help="of each kind")
    parser.add_argument("--vendor", choices=sorted(VENDORS), action="append")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="talks at the same time")
    given = parser.parse_args(argv)
    configure("error", "text")
    lost = doubled = count = 0
    for name in given.vendor or VENDORS:
        started_s = time.monotonic()
        vendor, backup = VENDORS[name]
        outcomes = uvloop.run(
            run(vendor, backup, given.kind or KINDS, given.moments, given.at_once)
        )
        print(f"{name}, then {backup.name}: {time.monotonic() - started_s:.0f} s")
        print(table(outcomes))
        for each in outcomes:
            if each.lost or each.doubled:
                print(f"  {each.kind} {each.seed}: {each.lost} lost, {each.doubled} doubled")
        lost += sum(each.lost for each in outcomes)
        doubled += sum(each.doubled for each in outcomes)
        count += len(outcomes)
    print(f"{count} faults, {lost} words lost, {doubled} doubled")
    return 1 if lost or doubled else 0


if __name__ == "__main__":
    sys.exit(main())
