"""Queues with messages in them, and a consumer at work on one."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dispatch import (
    DispatcherTranscriptionMessage,
    Envelope,
    Retrying,
    RPCResponse,
    TranscriptionDispatcher,
    Transport,
)
from dispatch.consumer import Consumer, ConsumerPlan
from dispatch.errors import Unreachable
from dispatch.messages import transcription
from dispatch.sources.interface import Source

QUICK = ConsumerPlan(
    batch_wait_s=0.0,
    poll_s=0.01,
    retrying=Retrying(first_delay_s=0.02, max_delay_s=0.05, probe_every_s=0.05),
)


def envelopes(session: str, numbers: Iterable[int], epoch: str = "e") -> list[Envelope]:
    """Messages whose texts are their numbers."""
    now_ms = int(time.time() * 1000)
    return [
        Envelope(
            f"{session}:{number}",
            session,
            transcription(session, "anna", [str(number)], number) or b"",
            1,
            epoch,
            now_ms,
        )
        for number in numbers
    ]


async def fill(transport: Transport, sessions: Sequence[str], each: int, first: int = 0) -> None:
    """Messages ``first`` and so on of each session, as a gateway sends them."""
    for session in sessions:
        waiting = envelopes(session, range(first, first + each))
        while waiting:
            try:
                del waiting[: await transport.send(waiting[:100])]
            except Unreachable:
                await asyncio.sleep(0.05)


def in_order(sessions: Sequence[str], each: int) -> dict[str, list[str]]:
    """The texts that ``fill`` put there."""
    return {session: [str(number) for number in range(each)] for session in sessions}


class Listener(TranscriptionDispatcher):
    """Keeps what it takes; ``judge`` says whether it takes a message."""

    def __init__(
        self, judge: Callable[[DispatcherTranscriptionMessage], bool] = lambda message: True
    ) -> None:
        self.heard: list[DispatcherTranscriptionMessage] = []
        self.refused: list[DispatcherTranscriptionMessage] = []
        self._judge = judge

    async def dispatch(self, message: DispatcherTranscriptionMessage) -> RPCResponse:
        is_taken = self._judge(message)
        (self.heard if is_taken else self.refused).append(message)
        return RPCResponse(success=is_taken, dispatched=int(is_taken))

    def texts(self) -> dict[str, list[str]]:
        """By session."""
        return texts(self.heard)


def texts(messages: Iterable[DispatcherTranscriptionMessage]) -> dict[str, list[str]]:
    """By session."""
    heard = defaultdict[str, list[str]](list)
    for message in messages:
        heard[message.session_id].append(message.text)
    return dict(heard)


@asynccontextmanager
async def consuming(
    source: Source[Any], sink: Transport, plan: ConsumerPlan = QUICK
) -> AsyncIterator[Consumer[Any]]:
    """A consumer at work, stopped at the end of the block."""
    async with source, sink:
        consumer: Consumer[Any] = Consumer(source, sink, plan)
        task = asyncio.create_task(consumer.run())
        try:
            yield consumer
            consumer.stop()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for it."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
