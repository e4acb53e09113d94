"""``sqs``: messages of an Amazon SQS queue, as ``dispatch.sqs_queue`` says.

Messages are hidden from other consumers while they are held here: until they are delivered and
deleted, or moved to the dead-letter queue that the queue's redrive policy names. What waits to be
tried again is held, too, so that it does not count as received anew and its group stays in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Self

import msgspec
from aiohttp import ClientError as ConnectionFailed
from botocore.exceptions import BotoCoreError, ClientError

from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.sources.ending import end
from dispatch.sources.sessions import Sessions
from dispatch.sqs_queue import (
    AMBIENT,
    MAX_BATCH,
    Credentials,
    connect,
    envelope_of,
    group_id,
    is_fifo,
)

log = logging.getLogger("dispatch")

LONG_POLL_S = 10
RECEIVERS = 2
CONNECTIONS = 8
MAX_HELD = 200
VISIBILITY_S = 60
"""A dead consumer's messages are seen by others after so long at most."""
LETTER_VISIBILITY_S = 30
BLOCK_S = 0.5
LONGEST_PAUSE_S = 30.0
MAX_REASON = 256
REASON = "reason"
DIED_MS = "died_ms"
UNREADABLE = "not a message of the dispatch queue"
NO_DEAD_LETTERS = (
    "the queue has no redrive policy: give it one with a dead-letter queue, which is where messages"
    " go that are refused"
)
_FAILURES = (ClientError, BotoCoreError, ConnectionFailed, OSError)


class SqsRow(msgspec.Struct, frozen=True):
    """A message; ``name`` is its id in SQS."""

    name: str
    session: str
    offset: int
    epoch: str
    attempt: int
    enqueued_ms: int
    body: bytes
    attributes: dict[str, Any]

    def failed(self) -> SqsRow:
        return msgspec.structs.replace(self, attempt=self.attempt + 1)


class SqsLetter(msgspec.Struct, frozen=True):
    """A message that was given up: why, and when (ms since 1970)."""

    row: SqsRow
    reason: str
    died_ms: int
    receipt: str


class SqsSource:
    """Calls raise ``Unreachable`` while SQS does not answer; ``Refused`` when it says no."""

    def __init__(
        self,
        queue_url: str,
        region: str = "us-east-1",
        endpoint_url: str | None = None,
        *,
        credentials: Credentials = AMBIENT,
        deadline_s: float = 10.0,
        visibility_s: int = VISIBILITY_S,
        long_poll_s: int = LONG_POLL_S,
    ) -> None:
        self._url = queue_url
        self._connecting = connect(
            region,
            endpoint_url,
            credentials,
            connections=CONNECTIONS,
            read_within_s=deadline_s + long_poll_s,
        )
        self._deadline_s = deadline_s
        self._visibility_s = visibility_s
        self._long_poll_s = long_poll_s
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._dead_url = ""
        self._sessions: Sessions[SqsRow] = Sessions()
        self._receipts: dict[str, str] = {}
        self._letters: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._client = await self._stack.enter_async_context(self._connecting)
        try:
            await self._find_dead_letters()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._tasks)
        with suppress(DispatchError):
            await self._hide(self._url, self._receipts.items(), 0)
            await self._hide(self._dead_url, self._letters.items(), 0)
        await self._stack.aclose()

    async def _find_dead_letters(self) -> None:
        """Raises ``DispatchError`` when there is no place for them."""
        answer = await self._ask(
            lambda: self._client.get_queue_attributes(
                QueueUrl=self._url, AttributeNames=["RedrivePolicy"]
            )
        )
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        if not policy:
            raise Refused(NO_DEAD_LETTERS, final=True)
        arn = str(msgspec.json.decode(policy)["deadLetterTargetArn"]).split(":")
        found = await self._ask(
            lambda: self._client.get_queue_url(QueueName=arn[5], QueueOwnerAWSAccountId=arn[4])
        )
        self._dead_url = found["QueueUrl"]

    async def claim(self, owner: str, limit: int = 100, lease_s: float = 30.0) -> list[SqsRow]:
        """Rows that were received, else those that come while it waits for them a moment."""
        self._receive()
        taken = self._sessions.take(limit, lease_s)
        if not taken and not self._sessions.out:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(BLOCK_S):
                    await self._changed.wait()
            taken = self._sessions.take(limit, lease_s)
        return taken

    def _receive(self) -> None:
        """Begin, with the first claim: who only lists dead letters takes nothing."""
        if not self._tasks:
            works = [self._receiving] * RECEIVERS + [self._keeping]
            self._tasks = [asyncio.create_task(work()) for work in works]

    async def ack(self, owner: str, rows: Sequence[SqsRow]) -> None:
        names = [row.name for row in rows]
        pairs = [(name, self._receipts.get(name, "")) for name in names]
        failed = await self._in_batches(pairs, {}, "delete_message_batch", self._url)
        gone = [row for row in rows if row.name not in failed]
        for row in gone:
            self._receipts.pop(row.name, None)
        self._sessions.settle(gone)
        self._changed.set()
        if failed:
            raise Unreachable(f"the queue did not delete {len(failed)} messages")

    async def retry(self, owner: str, row: SqsRow, delay_s: float) -> None:
        self._sessions.back(row, delay_s)

    async def bury(self, owner: str, row: SqsRow, reason: str) -> None:
        await self._move(row, reason)
        self._receipts.pop(row.name, None)
        self._sessions.settle([row])
        self._changed.set()

    async def outbox_size(self) -> int:
        """How many messages are held here."""
        self._receive()
        return self._sessions.size + self._sessions.out

    async def oldest_ms(self) -> int | None:
        return self._sessions.oldest_ms()

    async def shed(self, keep: int) -> int:
        """Nothing: a queue of SQS has no bound but its retention."""
        return 0

    async def hasten(self, ahead_s: float) -> None:
        self._sessions.hasten(ahead_s)

    async def dead_letters(self, limit: int = 100) -> list[SqsLetter]:
        """What the dead-letter queue hands out; others cannot see it until this is closed."""
        letters: list[SqsLetter] = []
        while len(letters) < limit:
            found = await self._messages(
                self._dead_url, min(limit - len(letters), MAX_BATCH), 0, LETTER_VISIBILITY_S
            )
            if not found:
                break
            for message in found:
                self._letters[message["MessageId"]] = message["ReceiptHandle"]
                letters.append(letter_of(message))
        return letters

    async def redrive(self, letters: Sequence[SqsLetter]) -> int:
        count = 0
        for letter in letters:
            if letter.reason == UNREADABLE:
                continue
            attributes = {
                name: value
                for name, value in letter.row.attributes.items()
                if name not in (REASON, DIED_MS)
            }
            await self._send(self._url, letter.row, attributes)
            await self._delete(self._dead_url, letter.receipt)
            self._letters.pop(letter.row.name, None)
            count += 1
        return count

    async def _receiving(self) -> None:
        pause_s = 0.5
        while True:
            while len(self._receipts) >= MAX_HELD:
                self._changed.clear()
                await self._changed.wait()
            try:
                for message in await self._messages(
                    self._url, MAX_BATCH, self._long_poll_s, self._visibility_s
                ):
                    await self._put(message)
                pause_s = 0.5
            except DispatchError as error:
                log.error("Error dispatching transcription: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _put(self, message: dict[str, Any]) -> None:
        name, receipt = message["MessageId"], message["ReceiptHandle"]
        is_held = name in self._receipts
        self._receipts[name] = receipt
        if is_held:
            return
        row = row_of(message)
        if row is None:
            await self._move(unread(message), UNREADABLE)
            del self._receipts[name]
        else:
            self._sessions.put([row])
            self._changed.set()

    async def _keeping(self) -> None:
        """Keep what is held hidden."""
        while True:
            await asyncio.sleep(self._visibility_s / 3)
            with suppress(DispatchError):
                held = list(self._receipts.items())
                await self._hide(self._url, held, self._visibility_s)

    async def _hide(self, url: str, pairs: Iterable[tuple[str, str]], for_s: int) -> None:
        timeout = {"VisibilityTimeout": for_s}
        await self._in_batches(list(pairs), timeout, "change_message_visibility_batch", url)

    async def _in_batches(
        self,
        pairs: Sequence[tuple[str, str]],
        more: dict[str, Any],
        operation: str,
        url: str,
    ) -> set[str]:
        """A call for every ten messages; the names of those for which it failed."""
        failed: set[str] = set()
        waiting = iter(pairs)
        while part := list(itertools.islice(waiting, MAX_BATCH)):
            entries = [
                {"Id": str(index), "ReceiptHandle": receipt, **more}
                for index, (_, receipt) in enumerate(part)
            ]
            call = partial(getattr(self._client, operation), QueueUrl=url, Entries=entries)
            answer = await self._ask(call)
            failed.update(part[int(each["Id"])][0] for each in answer.get("Failed", ()))
        return failed

    async def _messages(
        self, url: str, count: int, wait_s: int, visibility_s: int
    ) -> list[dict[str, Any]]:
        answer = await self._ask(
            lambda: self._client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            ),
            wait_s,
        )
        return list(answer.get("Messages", ()))

    async def _move(self, row: SqsRow, reason: str) -> None:
        """To the dead letters; both are there for a moment, if it fails in between."""
        told = {REASON: reason[:MAX_REASON], DIED_MS: str(int(time.time() * 1000))}
        kept = list(row.attributes.items())[: MAX_BATCH - len(told)]
        attributes = dict(kept) | {
            name: {"DataType": "String", "StringValue": value} for name, value in told.items()
        }
        await self._send(self._dead_url, row, attributes)
        await self._delete(self._url, self._receipts.get(row.name, ""))

    async def _send(self, url: str, row: SqsRow, attributes: dict[str, Any]) -> None:
        more = {}
        if is_fifo(url):
            again = hashlib.sha256(f"{row.name}/{time.time_ns()}".encode()).hexdigest()
            more = {"MessageGroupId": group_id(row.session), "MessageDeduplicationId": again}
        await self._ask(
            lambda: self._client.send_message(
                QueueUrl=url,
                MessageBody=row.body.decode(),
                MessageAttributes=attributes,
                **more,
            )
        )

    async def _delete(self, url: str, receipt: str) -> None:
        await self._ask(lambda: self._client.delete_message(QueueUrl=url, ReceiptHandle=receipt))

    async def _ask(self, call: Callable[[], Awaitable[Any]], wait_s: float = 0.0) -> Any:
        try:
            async with asyncio.timeout(self._deadline_s + wait_s):
                return await call()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            raise Refused(f"the queue answered {code}") from error
        except TimeoutError as error:
            raise Unreachable(f"the queue did not answer in {self._deadline_s:g} s") from error
        except _FAILURES as error:
            raise Unreachable(f"the queue was not reached: {type(error).__name__}") from error


def row_of(message: dict[str, Any]) -> SqsRow | None:
    """A message as a row; None when it is none of ours."""
    try:
        envelope = envelope_of(message)
        session, _, offset = envelope.message_id.rpartition(":")
        if session != envelope.session:
            return None
        number = int(offset)
    except ValueError:
        return None
    received = int(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
    return SqsRow(
        message["MessageId"],
        session,
        number,
        envelope.epoch,
        received - 1,
        envelope.enqueued_ms,
        envelope.body,
        portable(message),
    )


def unread(message: dict[str, Any]) -> SqsRow:
    """What is none of ours, as far as it can be moved elsewhere."""
    body = message.get("Body", "").encode()
    return SqsRow(message["MessageId"], "?", 0, "", 0, 0, body, portable(message))


def portable(message: dict[str, Any]) -> dict[str, Any]:
    """Attributes as they are sent; received, they have empty lists beside the value."""
    kinds = ("DataType", "StringValue", "BinaryValue")
    return {
        name: {kind: value[kind] for kind in kinds if kind in value}
        for name, value in message.get("MessageAttributes", {}).items()
    }


def letter_of(message: dict[str, Any]) -> SqsLetter:
    """A dead letter; SQS itself moves messages there, too, and gives no reason."""
    attributes = portable(message)
    reason = attributes.get(REASON, {}).get("StringValue", "received too often")
    died = attributes.get(DIED_MS, {}).get("StringValue", "0")
    row = row_of(message) or unread(message)
    return SqsLetter(row, reason, int(died) if died.isdigit() else 0, message["ReceiptHandle"])
