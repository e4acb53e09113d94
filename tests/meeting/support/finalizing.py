"""A worker that begins to finalize a session and hangs half way; to be killed.

``python -m tests.meeting.support.finalizing FOLDER before|after`` says ``half way`` when it is
there: before or after it has put result.json.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from msgspec import Raw

from tests.meeting.support.stored import SESSION, worker

LEASE_S = 1.0
METADATA = Raw(b'{"asked":"before the end"}')


async def main(folder: Path, where: str) -> None:
    async with worker(folder, lease_s=LEASE_S) as w:
        put = w.objects.put

        async def hang(key: str, body: bytes, **options: object) -> None:
            if where == "after":
                await put(key, body, **options)  # type: ignore[arg-type]
            print("half way", flush=True)
            await asyncio.Event().wait()

        w.objects.put = hang  # type: ignore[assignment, method-assign]
        await w.finalizer.finalize(SESSION, METADATA)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
