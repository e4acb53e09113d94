"""A dispatcher of the demo's gateway: the finals as they come out of the local queue.

Comes in: the lines that ``edgescribe dispatcher`` writes, in a process of its own. Goes out: its
messages, and whether they are the finals that the speakers got.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

STOP_WITHIN_S = 12.0
COMPLETE_WITHIN_S = 5.0
QUEUE = (
    *("--set", "dispatch_sqs_url=", "--set", "dispatch_redis_url=", "--set", "dispatch_local=on"),
)
"""What a gateway is started with so that the local queue is the way that finals take."""


class DispatchedMessage(msgspec.Struct, frozen=True, rename="camel"):
    """One line."""

    endpoint_id: str
    text: str


_decoder = msgspec.json.Decoder(DispatchedMessage)


class Dispatched:
    """What came so far, in order of arrival."""

    def __init__(self) -> None:
        self.messages: list[DispatchedMessage] = []
        self._grown = asyncio.Event()

    def add(self, message: DispatchedMessage) -> None:
        self.messages.append(message)
        self._grown.set()

    async def complete(self, count: int) -> None:
        """Wait until so many have come, but not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(COMPLETE_WITHIN_S):
                while len(self.messages) < count:
                    self._grown.clear()
                    await self._grown.wait()


@asynccontextmanager
async def dispatching(
    data_dir: Path, show: Callable[[DispatchedMessage], None]
) -> AsyncIterator[Dispatched]:
    """A dispatcher for the length of the block; it is at work a moment after the block began."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge.cli", "dispatcher", "--source", "local", "--sink", "stdout"),
        *("--data-dir", str(data_dir), "--batch-wait", "0", "--config", os.devnull),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # Ctrl-C is for the demo alone.
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    dispatched = Dispatched()
    reading = asyncio.create_task(_read(process, dispatched, show))
    try:
        yield dispatched
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(
    process: asyncio.subprocess.Process,
    dispatched: Dispatched,
    show: Callable[[DispatchedMessage], None],
) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        message = _decoder.decode(line)
        dispatched.add(message)
        show(message)


def differences(
    dispatched: Sequence[DispatchedMessage], finals: Mapping[str, Sequence[str]]
) -> list[str]:
    """Participants whose messages are not their finals, in order; finals without text apart."""
    found = []
    for participant, said in finals.items():
        wanted = [text for text in said if text]
        heard = [each.text for each in dispatched if each.endpoint_id == participant]
        if len(heard) != len(wanted):
            found.append(f"{len(wanted)} finals of {participant}, but {len(heard)} dispatched")
        elif heard != wanted:
            found.append(f"the dispatched finals of {participant} are others or out of order")
    return found
