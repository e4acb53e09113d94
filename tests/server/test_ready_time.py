"""How soon a gateway takes work after it was started."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.server import starting

READY_WITHIN_S = 3.0
CPU_S = 2.0
TRIES = 3


class Start(NamedTuple):
    """One start of two workers."""

    wall_s: float
    cpu_s: float
    """Of the longest way to readiness: the main process, then the slowest of its workers."""


def cpu_s(pid: int) -> float:
    """CPU time of a process (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start() -> Start:
    began_s = time.monotonic()
    with starting("--workers", "2") as server:
        server.wait_ready()
        wall_s = time.monotonic() - began_s
        return Start(wall_s, cpu_s(server.process.pid) + max(map(cpu_s, server.workers())))


def test_two_workers_are_ready_within_three_seconds() -> None:
    """On a machine that is busy with something else the CPU time that it takes is judged alone."""
    starts = [start() for _ in range(TRIES)]
    assert min(each.cpu_s for each in starts) <= CPU_S, starts
    is_quiet = os.getloadavg()[0] < len(os.sched_getaffinity(0))
    assert min(each.wall_s for each in starts) <= READY_WITHIN_S or not is_quiet, starts
