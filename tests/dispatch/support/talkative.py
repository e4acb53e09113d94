"""A Realtime transcription endpoint that says numbered finals, whatever it hears.

``async with Talkative(per_s=20) as endpoint``: every stream gets so many finals a second until
``most`` were said on all of them. When each was said is kept, by its text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from contextlib import suppress
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.asr.fakes.openai_endpoint import KEY
from tests.asr.fakes.openai_objects import described

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Talkative:
    """Give ``environment`` to a gateway."""

    def __init__(self, *, per_s: float, most: int = 1 << 30) -> None:
        self.said_s: dict[str, float] = {}
        """When each final was said (``time.perf_counter``)."""
        self._per_s = per_s
        self._most = most
        self._numbers = itertools.count(1)
        self._server: Server | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a gateway that has no other recognizer."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return {
            "OPENAI_API_KEY": KEY,
            "OPENAI_REALTIME_URL": f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription",
            "PROVIDERS_PRIORITY": "openai",
        }

    @property
    def is_done(self) -> bool:
        """Whether all has been said."""
        return len(self.said_s) >= self._most

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            select_subprotocol=lambda _, offered: _realtime(offered),
            compression=None,
            ping_interval=None,
            close_timeout=0.2,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        talking: asyncio.Task[None] | None = None
        try:
            await _send(socket, "session.created", session=described({}))
            async for message in socket:
                if talking is None and (event := json.loads(message))["type"].endswith(".update"):
                    kind = event["type"].replace(".update", ".updated")
                    await _send(socket, kind, session=described(event["session"]))
                    talking = asyncio.create_task(self._talk(socket))
        except ConnectionClosed:
            pass
        finally:
            if talking is not None:
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)

    async def _talk(self, socket: ServerConnection) -> None:
        """One final after the other, at an even pace."""
        due_s = time.perf_counter()
        with suppress(ConnectionClosed):
            while not self.is_done:
                text = f"number {next(self._numbers)}"
                item = text.replace(" ", "_")
                await _send(
                    socket, "input_audio_buffer.committed", item_id=item, previous_item_id=None
                )
                self.said_s[text] = time.perf_counter()
                await _send(
                    socket,
                    f"{TRANSCRIPTION}.completed",
                    item_id=item,
                    content_index=0,
                    transcript=text,
                )
                due_s += 1 / self._per_s
                await asyncio.sleep(due_s - time.perf_counter())


def _realtime(offered: Any) -> Subprotocol | None:
    return Subprotocol("realtime") if "realtime" in offered else None


async def _send(socket: ServerConnection, kind: str, **members: Any) -> None:
    await socket.send(json.dumps({"type": kind, "event_id": "event", **members}))
