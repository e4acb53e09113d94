"""``sqs``: messages of an Amazon SQS queue, as ``dispatch.sqs_queue`` says.

A batch may be taken in part, also out of its middle. So that a session stays in order in a FIFO
queue all the same, a batch holds one message of a session, and those of several sessions together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from aiohttp import ClientError as ConnectionFailed
from botocore.exceptions import BotoCoreError, ClientError

from dispatch.addresses import check_url
from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope
from dispatch.sqs_queue import (
    AMBIENT,
    MAX_BATCH,
    MAX_BYTES,
    Credentials,
    connect,
    entry_of,
    is_fifo,
    size_of,
)

MAX_AT_ONCE = 8
"""Batches that are under way."""
REFUSALS = frozenset(
    {"BatchRequestTooLong", "InvalidAttributeValue", "InvalidMessageContents"}
    | {"InvalidParameterValue"}
)
"""Codes that are about what a message holds; others are about the queue, the key or the hour."""


class Item(msgspec.Struct):
    """A message on its way into a batch."""

    entry: dict[str, Any]
    size: int
    taken: asyncio.Future[None]


class SqsTransport(Transport):
    """Sends what waits of all sessions in batches, as many at once as ``MAX_AT_ONCE``."""

    def __init__(
        self,
        queue_url: str,
        *,
        region: str = "us-east-1",
        endpoint_url: str | None = None,
        credentials: Credentials = AMBIENT,
        deadline_s: float = 10.0,
    ) -> None:
        """``endpoint_url``: of an SQS that is not Amazon's. ``ValueError`` for the queue's URL."""
        self._queue_url = check_url(queue_url, "http", "https")
        self._region = region
        self._endpoint_url = endpoint_url
        self._credentials = credentials
        self._deadline_s = deadline_s
        self._is_fifo = is_fifo(queue_url)
        self._waiting: deque[Item] = deque()
        self._pumps: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        self._client = await self._stack.enter_async_context(
            connect(
                self._region,
                self._endpoint_url,
                self._credentials,
                connections=MAX_AT_ONCE,
                read_within_s=self._deadline_s,
            )
        )

    async def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._client = None
        await self._stack.aclose()

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        assert self._client is not None, "open() comes first"
        step = 1 if self._is_fifo else MAX_BATCH
        count = 0
        try:
            async with asyncio.timeout(self._deadline_s):
                for start in range(0, len(envelopes), step):
                    part = envelopes[start : start + step]
                    taken = await self._take(part)
                    count += taken
                    if taken < len(part):
                        break
        except TimeoutError as error:
            if not count:
                raise Unreachable(f"no answer within {self._deadline_s:g} s") from error
        except DispatchError:
            if not count:
                raise
        return count

    async def _take(self, envelopes: Sequence[Envelope]) -> int:
        """How many of the first were taken; the first one's error if it was not."""
        loop = asyncio.get_running_loop()
        items: list[Item] = []
        for envelope in envelopes:
            try:
                entry = entry_of(envelope, fifo=self._is_fifo)
            except UnicodeDecodeError as error:
                if items:
                    break
                raise Refused("the message is not text", final=True) from error
            items.append(Item(entry, size_of(entry), loop.create_future()))
        self._waiting.extend(items)
        if len(self._pumps) < MAX_AT_ONCE:
            pump = asyncio.create_task(self._pump())
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        results = await asyncio.gather(*(item.taken for item in items), return_exceptions=True)
        for count, result in enumerate(results):
            if result is not None:
                if not count:
                    raise result
                return count
        return len(results)

    async def _pump(self) -> None:
        """Send batches until nothing waits."""
        await asyncio.sleep(0)
        while batch := self._next_batch():
            try:
                await self._send_batch(batch)
            except (LookupError, TypeError, ValueError):
                settle(batch, Unreachable("the queue's answer is not one of SQS"))
            finally:
                settle(batch, Unreachable("the transport was closed"))

    def _next_batch(self) -> list[Item]:
        """What waits, as much of it as fits into one call."""
        batch: list[Item] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            item = self._waiting[0]
            if item.taken.done():
                self._waiting.popleft()
            elif item.size > MAX_BYTES:
                self._waiting.popleft()
                settle([item], Refused(f"the message is larger than {MAX_BYTES} bytes", final=True))
            elif size + item.size > MAX_BYTES:
                break
            else:
                batch.append(self._waiting.popleft())
                size += item.size
        return batch

    async def _send_batch(self, batch: list[Item]) -> None:
        """Settle each of them; a request that is refused as a whole is made for each alone."""
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._client.send_message_batch(
                    QueueUrl=self._queue_url,
                    Entries=[{"Id": str(n), **item.entry} for n, item in enumerate(batch)],
                )
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code.rpartition(".")[2] not in REFUSALS:
                settle(batch, Unreachable(f"the queue answered {code}"))
            elif len(batch) == 1:
                settle(batch, Refused(f"the queue answered {code}", final=True))
            else:
                for item in batch:
                    await self._send_batch([item])
            return
        except (BotoCoreError, ConnectionFailed, OSError, TimeoutError) as error:
            settle(batch, Unreachable(f"the queue was not reached: {type(error).__name__}"))
            return
        for failed in answer.get("Failed", ()):
            settle([batch[int(failed["Id"])]], reason_of(failed))
        settle([batch[int(done["Id"])] for done in answer.get("Successful", ())], None)
        settle(batch, Unreachable("the queue did not say what it took"))


def reason_of(failed: dict[str, Any]) -> DispatchError:
    """Why one message of a batch was not taken."""
    code = str(failed.get("Code", ""))
    if failed.get("SenderFault"):
        return Refused(f"the queue answered {code}", final=True)
    return Unreachable(f"the queue answered {code}")


def settle(items: Sequence[Item], error: DispatchError | None) -> None:
    """Tell those who wait for these, unless they were told before."""
    for item in items:
        if item.taken.done():
            continue
        if error is None:
            item.taken.set_result(None)
        else:
            item.taken.set_exception(error)
