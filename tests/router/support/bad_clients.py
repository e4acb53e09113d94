"""Clients that bring out the worst in services, in a process of their own.

``python -m tests.router.support.bad_clients PORT HOST…`` asks until its input ends, then says how
much of each it has done.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter

ANSWERED = {"crash": b" 500 ", "exit": b" 500 ", "leak": b" 20"}
PAUSE_S = 0.01
HANGING = 50

done: Counter[str] = Counter()


async def ask(port: int, host: str, what: str) -> None:
    """Ask again and again on connections of their own."""
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
            if what == "flood":
                done["floods"] += 1


async def main(port: int, hosts: list[str]) -> None:
    """Ask all services for all there is."""
    tasks = [
        asyncio.ensure_future(ask(port, host, what))
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
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
