"""Whether a server of Redis keeps what it confirms: its log on disk, and its replicas."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from edge.errors import StoreUnavailable
from edge.logs import get_logger

MARK = "edgescribe:copied"

logger = get_logger(__name__)


async def check_log(client: Any, **options: Any) -> None:
    """Refuse a server that says its log is not written before it answers.

    Managed services often do not let their configuration be read: such a server is taken at its
    operator's word, with a warning.
    """
    try:
        found = await client.config_get("append*", **options)
    except ResponseError:
        found = {}
    if not found:
        logger.warning(
            "durability=full cannot be checked: the server hides its configuration",
            needed="appendonly yes, appendfsync always",
        )
    elif (found.get("appendonly"), found.get("appendfsync")) != ("yes", "always"):
        raise StoreUnavailable(
            "durability=full needs a Redis with 'appendonly yes' and 'appendfsync always'"
        )


class Copies:
    """Waits until a replica has what the server had when it was asked; callers share a round.

    Whether there is a replica is looked at in each round, so that one that comes, goes or is
    promoted counts from then on. A server without any confirms alone.
    """

    def __init__(self, client: Any, wait_s: float) -> None:
        self._client = client
        self._wait_ms = max(int(wait_s * 1000), 1)
        self._next: dict[str, asyncio.Task[None]] = {}
        self._rounds: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._checked = ""

    async def confirm(self, run: str) -> None:
        """Return when all that this run of the server had done before the call is on a replica.

        Raises the client's ``ConnectionError`` when none has it in time, or when another server
        answers: what was done must then be asked again.
        """
        task = self._next.get(run)
        if task is None:
            task = self._next[run] = asyncio.create_task(self._round(run))
            self._rounds.add(task)
            task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def close(self) -> None:
        """End the rounds whose callers were all cancelled."""
        for task in self._rounds:
            task.cancel()
        if self._rounds:
            await asyncio.wait(self._rounds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        if not task.cancelled():
            task.exception()

    async def _round(self, run: str) -> None:
        async with self._turn:
            self._next.pop(run, None)
            async with asyncio.timeout(self._wait_ms / 1000 * 1.5):
                await self._ask(run)

    async def _ask(self, run: str) -> None:
        info = await self._client.info("server", "replication")
        if info["run_id"] != run:
            raise LostError("another server has taken over")
        if self._checked != run:
            await check_log(self._client)
            self._checked = run
        if not info["connected_slaves"]:
            return
        # A WAIT counts from the last write of its own connection: hence one before it.
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(MARK, run)
        pipeline.execute_command("WAIT", 1, self._wait_ms)
        pipeline.info("server")
        _, copies, server = await pipeline.execute()
        if server["run_id"] != run or copies < 1:
            raise LostError("no replica confirmed")
