"""Scripts that are asked for at the same time travel together: one write and many answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

Asked = tuple[tuple[Any, ...], "asyncio.Future[Any]"]


class Together:
    """Puts scripts of one turn of the event loop on one connection, ``size`` at most.

    They are separate steps for the server, done in the order of the calls. A connection that is
    lost fails all that were on it, each caller decides what that means for it. A caller that is
    cancelled does not take its script back.
    """

    def __init__(self, client: Any, room: asyncio.Semaphore, size: int) -> None:
        self._client = client
        self._room = room
        self._size = size
        self._asked: deque[Asked] = deque()
        self._trips: set[asyncio.Task[None]] = set()
        self._leaving = False

    async def run(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's answer; raises what the client raises for it alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._asked.append(((sha, len(keys), *keys, *args), future))
        if not self._leaving:
            self._leaving = True
            loop.call_soon(self._leave)
        return await future

    async def close(self) -> None:
        for task in self._trips:
            task.cancel()
        if self._trips:
            await asyncio.wait(self._trips)

    def _leave(self) -> None:
        self._leaving = False
        while self._asked:
            count = min(self._size, len(self._asked))
            group = [self._asked.popleft() for _ in range(count)]
            task = asyncio.create_task(self._trip(group))
            self._trips.add(task)
            task.add_done_callback(self._trips.discard)

    async def _trip(self, group: list[Asked]) -> None:
        try:
            async with self._room:
                group = [(asked, future) for asked, future in group if not future.done()]
                answers = await self._ask([asked for asked, _ in group])
        except Exception as error:
            answers = [error] * len(group)
        except asyncio.CancelledError:
            for _, future in group:
                future.cancel()
            raise
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _ask(self, group: list[tuple[Any, ...]]) -> Sequence[Any]:
        if not group:
            return []
        if len(group) == 1:
            return [await self._client.evalsha(*group[0])]
        pipeline = self._client.pipeline(transaction=False)
        for asked in group:
            pipeline.evalsha(*asked)
        answers: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        return answers
