"""A worker that puts numbered chunks through a spool, and says what was acked.

Run as ``python -m tests.objects.support.spool_worker SETTINGS DATA_DIR NAME COUNT``; SETTINGS is
JSON. Prints one key a line, once it is durable, and stays until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from edge.objects.opening import open_objects
from edge.objects.settings import ObjectSettings


def body_of(key: str) -> bytes:
    """The 32,000 bytes that belong to a key."""
    return (key.encode() * 32_000)[:32_000]


async def main(settings: ObjectSettings, data_dir: Path, name: str, count: int) -> None:
    async with open_objects(settings, data_dir) as store:
        for seq in range(1, count + 1):
            key = f"{name}/{seq:08d}.pcm"
            await store.put(key, body_of(key), metadata={"seq": str(seq)}, only_new=True)
            print(key, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, given, folder, who, most = sys.argv
    settings = msgspec.json.decode(given, type=ObjectSettings)
    asyncio.run(main(settings, Path(folder), who, int(most)))
