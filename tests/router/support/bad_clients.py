"""Clients that bring out the worst in services, in a process of their own.

``python -m tests.router.support.bad_clients PORT MB_PER_S HOST…`` asks until its input ends, then
says how much of each it has done. 0 MB/s takes floods as fast as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter

ANSWERED = {"crash": b" 500 ", "exit": b" 500 ", "leak": b" 20"}
PAUSE_S = 0.01
HANGING = 50

done: Counter[str] = Counter()


async def ask(port: int, host: str, what: str, mb_per_s: float) -> None:
    """Ask again and again on connections of their own."""
    pause_s = 1 / mb_per_s if mb_per_s else 0
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /{what} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        with contextlib.closing(writer):
            line = await reader.readline()
            if what in ANSWERED:
                assert ANSWERED[what] in line, line
                done[what] += 1
                await asyncio.sleep(PAUSE_S)
            while what == "flood" and (data := await reader.read(1024 * 1024)):
                done["flooded MB"] += len(data) // 1000
                await asyncio.sleep(pause_s * len(data) / 1e6)
            if what == "flood":
                done["floods"] += 1


async def main(port: int, mb_per_s: float, hosts: list[str]) -> None:
    """Ask all services for all there is."""
    # What is measured beside is the gateway's worker, not the want of a core for the measuring.
    os.nice(10)
    tasks = [
        asyncio.ensure_future(ask(port, host, what, mb_per_s))
        for host in hosts
        for what in (*ANSWERED, "flood", *("hang",) * HANGING)
    ]
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait((over, *tasks), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    done["flooded MB"] //= 1000
    print(" ".join(f"{count} {what}," for what, count in sorted(done.items())), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
