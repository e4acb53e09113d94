"""A worker process that appends to sessions and says what was confirmed: run by the tests."""

from __future__ import annotations

import asyncio
import sys

from edge.errors import StaleFence
from edge.session.store.interface import Draft, SessionStore
from edge.session.store.opening import open_store


async def write(
    store: SessionStore, session: str, track: str, count: int, *, when_told: bool
) -> None:
    """Append ``count`` finals; a line ``offset text`` for each that was confirmed.

    With ``when_told`` one for each line that comes in.
    """
    grant = await store.open_track(session, track)
    for number in range(count):
        if when_told:
            await asyncio.to_thread(sys.stdin.readline)
        text = f"{track}/{number}"
        try:
            offset = await store.append(grant, [Draft("final", text.encode())])
        except StaleFence:
            print("stale", flush=True)
            if not when_told:
                return
            continue
        print(offset, text, flush=True)


async def main(
    location: str, durability: str, session: str, track: str, count: str, pace: str
) -> None:
    async with open_store(location, "full" if durability == "full" else "normal") as store:
        print("ready", flush=True)
        await write(store, session, track, int(count), when_told=pace == "told")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
