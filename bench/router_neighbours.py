"""What a speaker waits for results through the router, alone and beside services gone bad.

The services run in the gateway's worker: they crash, end their process if they can, hang, leak
tasks and answer 10 GB as fast as it is taken. ``python -m bench.router_neighbours [ROUNDS]``
measures in turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.ingest.support.latency import p99, results_ms
from tests.ingest.support.session import SessionClient
from tests.router.support.neighbours import gateway_among_services, misbehaving

WORDS = 150
ROUNDS = 4
KINDS = {"alone": None, "beside floods of 100 MB/s": 100.0, "beside floods without end": 0.0}
"""How fast each of the two bad services sends; 0 is as fast as it can."""


def memory_mib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


async def main(rounds: int) -> None:
    """Measure and print."""
    took_ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        async with gateway_among_services(Path(folder)) as server:
            speaker = await SessionClient.open(server, "session=room&speaker=anna")
            await speaker.hello("speaker")
            (worker,) = server.workers()
            before_mib = memory_mib(worker)
            for _ in range(rounds):
                for kind, mb_per_s in KINDS.items():
                    with (
                        contextlib.nullcontext()
                        if mb_per_s is None
                        else misbehaving(server.port, mb_per_s)
                    ):
                        took_ms[kind] += await results_ms(speaker, WORDS)
            after_mib = memory_mib(worker)
            await speaker.leave()
    for kind, took in took_ms.items():
        took.sort()
        print(f"{kind}: {len(took)} results, {median(took):.1f} ms, p99 {p99(took):.1f} ms")
    print(f"the worker's memory: {before_mib} MiB before, {after_mib} MiB after")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
