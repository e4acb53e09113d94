"""Starts worker processes for the tests."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

REPOSITORY = Path(__file__).parents[4]


async def start_writer(
    location: str, session: str, track: str, count: int, durability: str = "normal"
) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.session.store.support.writer"),
        *(location, durability, session, track, str(count)),
        stdout=PIPE,
        cwd=REPOSITORY,
    )


async def lines_of(process: Process) -> list[str]:
    """What the process said until it ended, whole lines only."""
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    await process.wait()
    return [line for line in said.split("\n")[:-1] if line != "ready"]
