"""Rows of a real outbox reach real targets in order, whatever those answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from dispatch import (
    Dispatcher,
    DispatcherTranscriptionMessage,
    Retrying,
    RPCResponse,
    TranscriptionDispatcher,
    Transport,
)
from dispatch.messages import decode_message, transcription
from dispatch.redis_stream import partitions
from dispatch.transports.binding import BindingTransport
from dispatch.transports.http import HttpTransport
from dispatch.transports.redis import RedisTransport
from edge.session.store.interface import Draft, OutboxRow, SessionStore
from edge.session.store.opening import open_store
from tests.session.store.support.valkey import Valkey

QUICK = Retrying(first_delay_s=0.02, max_delay_s=0.05, probe_every_s=0.05)
SESSIONS = ("red", "green", "blue")
EACH = 40


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(tmp_path / "sessions.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


async def fill(store: SessionStore, sessions: tuple[str, ...] = SESSIONS, each: int = EACH) -> None:
    """Finals ``0``, ``1``, … of each session, with their outbox rows."""
    for session in sessions:
        grant = await store.open_track(session, "anna")
        bodies = [transcription(session, "anna", [str(index)], index) for index in range(each)]
        drafts = [Draft("final", body or b"") for body in bodies]
        await store.append(grant, drafts, [(n, body or b"") for n, body in enumerate(bodies)])


@asynccontextmanager
async def delivering(
    store: SessionStore, transport: Transport
) -> AsyncIterator[Dispatcher[OutboxRow]]:
    """A dispatcher at work."""
    async with transport:
        dispatcher = Dispatcher(store, transport, QUICK, idle_s=0.01)
        task = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def empty(store: SessionStore) -> None:
    """Wait until nothing waits in the outbox."""
    async with asyncio.timeout(20):
        while await store.outbox_size():
            await asyncio.sleep(0.01)


def texts(messages: list[DispatcherTranscriptionMessage]) -> dict[str, list[str]]:
    heard = defaultdict[str, list[str]](list)
    for message in messages:
        heard[message.session_id].append(message.text)
    return dict(heard)


def in_order(sessions: tuple[str, ...] = SESSIONS, each: int = EACH) -> dict[str, list[str]]:
    return {session: [str(index) for index in range(each)] for session in sessions}


class Listener(TranscriptionDispatcher):
    """Keeps what it takes; ``judge`` says what becomes of a message."""

    def __init__(self, judge: Callable[[DispatcherTranscriptionMessage], bool] | None = None):
        self.heard: list[DispatcherTranscriptionMessage] = []
        self.judge = judge

    async def dispatch(self, message: DispatcherTranscriptionMessage) -> RPCResponse:
        if self.judge is not None and not self.judge(message):
            return RPCResponse(success=False, dispatched=0, errors=["no"])
        self.heard.append(message)
        return RPCResponse(success=True, dispatched=1)


async def test_binding_hears_every_session_in_order(store: SessionStore) -> None:
    await fill(store)
    listener = Listener()
    async with delivering(store, BindingTransport(listener)) as dispatcher:
        await empty(store)
    assert texts(listener.heard) == in_order()
    assert dispatcher.counts.sent == len(SESSIONS) * EACH


async def test_redis_holds_every_session_in_order(store: SessionStore, valkey: Valkey) -> None:
    await fill(store)
    async with delivering(store, RedisTransport(valkey.url, "in-order")):
        await empty(store)
    redis = Redis.from_url(valkey.url)
    entries: list[Any] = []
    for partition in partitions("in-order"):
        entries += await redis.xrange(partition.messages)
    await redis.aclose()
    assert texts([decode_message(fields[b"body"]) for _, fields in entries]) == in_order()
    assert entries[0][1][b"id"].decode().endswith(":1")


async def test_a_poison_message_is_buried_and_holds_nobody_of_other_sessions(
    store: SessionStore,
) -> None:
    """Three retries, then dead; what follows it in its session waits until then."""
    await fill(store)
    asked = 0

    def judge(message: DispatcherTranscriptionMessage) -> bool:
        nonlocal asked
        is_poison = message.session_id == "red" and message.text == "7"
        asked += is_poison
        return not is_poison

    listener = Listener(judge)
    async with delivering(store, BindingTransport(listener)) as dispatcher:
        await empty(store)
    expected = in_order()
    expected["red"].remove("7")
    assert texts(listener.heard) == expected
    assert asked == 1 + QUICK.max_retries
    assert dispatcher.counts.dead == 1
    [letter] = await store.dead_letters()
    assert decode_message(letter.row.body).text == "7"
    assert letter.reason == "the dispatcher answered without success"


async def test_a_redis_that_is_away_is_waited_for(store: SessionStore, tmp_path: Path) -> None:
    """Many more failures than retries of a refusal, and nothing is dead-lettered."""
    await fill(store, ("red",), 5)
    server = Valkey(tmp_path)
    async with delivering(store, RedisTransport(server.url)) as dispatcher:
        async with asyncio.timeout(20):
            while dispatcher.counts.retried < 6:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        try:
            await empty(store)
        finally:
            server.kill()
    assert await store.dead_letters() == []
    assert dispatcher.counts.sent == 5


@asynccontextmanager
async def web_server(handler: Callable[[web.Request], object]) -> AsyncIterator[str]:
    """The URL of a server whose every request the handler answers."""
    server = web.Server(handler)  # type: ignore[arg-type]
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}/dispatch"
    await runner.cleanup()


async def test_http_survives_whatever_a_receiver_does(store: SessionStore) -> None:
    """500, 429 with Retry-After, a hang, a reset and garbage each cost time and no message."""
    await fill(store, ("red",), 8)
    heard: list[DispatcherTranscriptionMessage] = []
    keys: list[str] = []
    troubles = ["500", "429", "hang", "reset", "garbage"]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        trouble = troubles.pop() if troubles and len(heard) >= 2 else ""
        if trouble == "hang":
            await asyncio.sleep(3)
        if trouble == "reset" and request.transport is not None:
            request.transport.abort()
        if trouble == "garbage":
            return web.Response(text="<html>")
        if trouble in ("500", "429"):
            return web.Response(status=int(trouble), headers={"Retry-After": "0"})
        if not trouble:
            heard.append(decode_message(await request.read()))
        return web.json_response({"success": True, "dispatched": 1})

    async with (
        web_server(handler) as url,
        delivering(store, HttpTransport(url, deadline_s=2)),
    ):
        await empty(store)
    assert texts(heard) == in_order(("red",), 8)
    assert sorted(set(keys)) == [f"red:{offset}" for offset in range(1, 9)]
    assert await store.dead_letters() == []


async def test_http_gives_up_at_once_what_a_receiver_will_never_take(store: SessionStore) -> None:
    await fill(store, ("red",), 3)
    asked = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=422)

    async with web_server(handler) as url, delivering(store, HttpTransport(url)):
        await empty(store)
    assert asked == 3
    assert {letter.reason for letter in await store.dead_letters()} == {"status 422"}
