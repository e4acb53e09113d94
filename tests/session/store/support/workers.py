"""Starts worker processes for the tests."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

REPOSITORY = Path(__file__).parents[4]


async def start_writer(
    location: str,
    session: str,
    track: str,
    count: int,
    durability: str = "normal",
    *,
    when_told: bool = False,
) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.session.store.support.writer"),
        *(location, durability, session, track, str(count), "told" if when_told else "at once"),
        stdin=PIPE,
        stdout=PIPE,
        cwd=REPOSITORY,
    )


async def start_opener(location: str, session: str, count: int) -> Process:
    """A worker that opens ``count`` tracks of one session at once when it gets a line."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.session.store.support.opener"),
        *(location, session, str(count)),
        stdin=PIPE,
        stdout=PIPE,
        cwd=REPOSITORY,
    )


async def line_of(process: Process) -> str:
    """The next line it says."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def tell(process: Process) -> None:
    """One line for it to go on."""
    assert process.stdin is not None
    process.stdin.write(b"\n")


async def lines_of(process: Process) -> list[str]:
    """What the process said until it ended, whole lines only."""
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    await process.wait()
    return [line for line in said.split("\n")[:-1] if line != "ready"]
