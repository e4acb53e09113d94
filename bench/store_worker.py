"""A worker process that appends to many sessions at once: run by the benchmark of the store."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from edge.session.store.interface import Draft
from edge.session.store.opening import open_store

BODY = b"x" * 200
SESSIONS = 100


async def main(location: str, durability: str, appends: int) -> None:
    """Say ``ready``, wait for a line, append; then say when it began and ended, monotonic s."""
    async with open_store(location, "full" if durability == "full" else "normal") as store:
        grants = [await store.open_track(f"{os.getpid()} {n}", "t") for n in range(SESSIONS)]

        async def speak(number: int) -> None:
            for _ in range(appends // SESSIONS):
                await store.append(grants[number], [Draft("final", BODY)])

        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun_s = time.monotonic()
        await asyncio.gather(*map(speak, range(SESSIONS)))
        print(begun_s, time.monotonic(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
