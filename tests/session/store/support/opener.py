"""A worker process whose clients all open the same new session at once: run by the tests."""

from __future__ import annotations

import asyncio
import os
import sys

from edge.session.store.interface import Draft
from edge.session.store.opening import open_store


async def main(location: str, session: str, count: int) -> None:
    """Open, append, and say ``epoch fence offset`` of each."""
    async with open_store(location) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

        async def enter(number: int) -> str:
            grant = await store.open_track(session, f"{os.getpid()}/{number}")
            offset = await store.append(grant, [Draft("final", b"x")])
            return f"{grant.epoch} {grant.fence} {offset}"

        for line in await asyncio.gather(*map(enter, range(count))):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
