"""Hands one message that was brought to the sink, once, and says what became of it."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from dispatch.errors import Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope, RPCResponse, decode_message
from dispatch.seen import Seen

log = logging.getLogger("dispatch")

BUSY = "too many messages at a time"


class Answer(msgspec.Struct, frozen=True):
    """What the bringer is told; ``status`` is an HTTP status."""

    status: int
    said: RPCResponse
    retry_after_s: int | None = None


TAKEN = Answer(200, RPCResponse(success=True, dispatched=1))
KNOWN = Answer(200, RPCResponse(success=True, dispatched=0, message="taken before"))


def refusal(status: int, reason: str, retry_after_s: int | None = None) -> Answer:
    """An answer without success."""
    return Answer(status, RPCResponse(success=False, dispatched=0, errors=[reason]), retry_after_s)


class Bucket:
    """So many in a second, and as many at once after a pause."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._at_s = time.monotonic()

    def take(self) -> bool:
        """Whether there is one left."""
        now_s = time.monotonic()
        self._left = min(self._left + (now_s - self._at_s) * self._per_s, self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Desk:
    """``take`` for each message; safe for many at a time."""

    def __init__(
        self,
        sink: Transport,
        seen: Seen,
        *,
        deadline_s: float = 10.0,
        max_at_once: int = 1000,
        per_s: float = 10_000,
    ) -> None:
        self._sink = sink
        self._seen = seen
        self._deadline_s = deadline_s
        self._max_at_once = max_at_once
        self._bucket = Bucket(per_s)
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._count = 0

    async def take(self, body: bytes, name: str, attempt: int = 1, epoch: str = "") -> Answer:
        """Bring a message; the same ``name`` again waits for the first, or is known already.

        An empty name is no name: such a message is taken as often as it comes.
        """
        try:
            message = decode_message(body)
        except msgspec.DecodeError as error:
            return refusal(400, f"not a transcription message: {error}")
        known = f"{epoch}/{name}"
        if name and known in self._seen:
            return KNOWN
        if name and (task := self._under_way.get(known)):
            return await asyncio.shield(task)
        if len(self._under_way) >= self._max_at_once or not self._bucket.take():
            return refusal(429, BUSY, 1)
        self._count += 1
        key = known if name else f"-{self._count}"
        envelope = Envelope(
            name or f"{message.session_id}:-{self._count}",
            message.session_id,
            body,
            attempt,
            epoch,
            message.timestamp,
        )
        task = asyncio.create_task(self._send(envelope, known if name else ""))
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key))
        return await asyncio.shield(task)

    async def finish(self, within_s: float) -> None:
        """Let what is under way end within a time, then give it up."""
        if not self._under_way:
            return
        tasks = list(self._under_way.values())
        await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, envelope: Envelope, known: str) -> Answer:
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._sink.send([envelope])
        except Refused as error:
            # Without success is asked again, a status of the client's fault is not.
            answer = refusal(422 if error.final else 200, str(error))
        except Unreachable as error:
            answer = refusal(503, str(error), max(1, round(error.retry_after_s or 1)))
        except TimeoutError:
            answer = refusal(503, f"not taken within {self._deadline_s:g} s", 1)
        except Exception as error:
            answer = refusal(503, f"the sink raised {type(error).__name__}", 1)
        else:
            if known:
                self._seen.add([known])
            return TAKEN
        log.error("Dispatcher error: %s (message %s)", answer.said.errors, envelope.message_id)
        return answer
