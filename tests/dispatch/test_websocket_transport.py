"""A session has one connection to the service, and whatever the service does to it."""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from dispatch import Refused, Unreachable
from dispatch.transports.websocket import WebSocketTransport, address
from tests.dispatch.support.targets import NOT_TAKEN, TAKEN, envelope_of, envelopes

Talk = Callable[[ServerConnection, str], Awaitable[None]]


class Service:
    """Each message that arrives, and what is open; ``talk`` answers one message."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.heard: list[str] = []
        self.requests: list[Request] = []
        self.sockets: list[ServerConnection] = []
        self.url = ""

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.requests.append(socket.request)
        self.sockets.append(socket)
        with suppress(ConnectionClosed):
            async for message in socket:
                assert isinstance(message, str)
                self.heard.append(message)
                await self.talk(socket, message)
        self.sockets.remove(socket)

    async def until_open(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sockets) != count:
                await asyncio.sleep(0.01)


async def take(socket: ServerConnection, message: str) -> None:
    await socket.send(TAKEN.decode())


@asynccontextmanager
async def service(talk: Talk = take) -> AsyncIterator[Service]:
    made = Service(talk)
    async with serve(made.serve, "127.0.0.1", 0, close_timeout=0.2) as server:
        made.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
        yield made


async def test_a_session_has_one_connection_of_its_own_which_says_whose_it_is() -> None:
    headers = {"Authorization": "Bearer x"}
    sessions = ("red", "a&b=c/ü #?%")
    async with (
        service() as there,
        WebSocketTransport(f"{there.url}?key=1", headers=headers) as transport,
    ):
        for _ in range(2):
            for session in sessions:
                assert await transport.send(envelopes(session, 3)) == 3
        paths = [urlsplit(request.path) for request in there.requests]
        queries = [{"key": ["1"], "sessionId": [session]} for session in sessions]
        assert [parse_qs(path.query) for path in paths] == queries
        assert {path.path for path in paths} == {"/in"}
        assert all(request.headers["Authorization"] == "Bearer x" for request in there.requests)
    await there.until_open(0)


def test_the_session_comes_after_what_the_query_holds() -> None:
    assert address("ws://a/b", "x y") == "ws://a/b?sessionId=x%20y"
    assert address("wss://a/b?c=d", "é") == "wss://a/b?c=d&sessionId=%C3%A9"


async def test_a_connection_that_was_closed_is_made_again() -> None:
    async with service() as there, WebSocketTransport(there.url) as transport:
        for count in range(1, 4):
            assert await transport.send([envelope_of("red", count)]) == 1
            await there.sockets[0].close()
            await there.until_open(0)
        assert len(there.requests) == 3


async def test_a_silent_session_is_disconnected() -> None:
    async with service() as there, WebSocketTransport(there.url, idle_s=0.1) as transport:
        await transport.send([envelope_of("red", 1)])
        await there.until_open(0)
        assert await transport.send([envelope_of("red", 2)]) == 1


async def test_there_are_no_more_connections_than_allowed() -> None:
    """Whoever was silent for longest makes room, and nobody who waits for an answer."""
    may_answer = asyncio.Event()

    async def slow(socket: ServerConnection, message: str) -> None:
        if "hold" in message:
            await may_answer.wait()
        await socket.send(TAKEN.decode())

    async with (
        service(slow) as there,
        WebSocketTransport(there.url, max_connections=2) as transport,
    ):
        held = asyncio.create_task(transport.send([envelope_of("hold", 1)]))
        async with asyncio.timeout(5):
            while not there.heard:
                await asyncio.sleep(0.01)
        for session in ("a", "b", "c"):
            assert await transport.send([envelope_of(session, 1)]) == 1
            await there.until_open(2)
        also_held = asyncio.create_task(transport.send([envelope_of("hold too", 1)]))
        async with asyncio.timeout(5):
            while len(there.heard) < 5:
                await asyncio.sleep(0.01)
        with pytest.raises(Unreachable, match="2 connections"):
            await transport.send([envelope_of("d", 1)])
        may_answer.set()
        assert await asyncio.gather(held, also_held) == [1, 1]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NOT_TAKEN, Refused),
        (b"hello", Refused),
        (b'{"success": 1}', Refused),
        (b" " * 100_000, Refused),
    ],
    ids=["no success", "garbage", "another object", "too long"],
)
async def test_an_answer_that_does_not_say_success_is_none(
    answer: bytes, error: type[Exception]
) -> None:
    """Nor is it taken for the answer to the next message."""

    async def talk(socket: ServerConnection, message: str) -> None:
        bad = '"text":"2"' in message
        await socket.send((answer if bad else TAKEN).decode())

    async with service(talk) as there, WebSocketTransport(there.url) as transport:
        assert await transport.send(envelopes("red", 3)) == 1
        with pytest.raises(error) as refused:
            await transport.send([envelope_of("red", 2)])
        assert isinstance(refused.value, Refused) and not refused.value.final
        assert await transport.send([envelope_of("red", 3)]) == 1


@pytest.mark.parametrize(
    ("code", "final"), [(1013, None), (1000, None), (1008, None), (1009, True), (1007, True)]
)
async def test_a_close_before_the_answer_says_whether_it_is_the_messages_fault(
    code: int, final: bool | None
) -> None:
    async def talk(socket: ServerConnection, message: str) -> None:
        await socket.close(code)

    async with service(talk) as there, WebSocketTransport(there.url) as transport:
        with pytest.raises(Refused if final else Unreachable, match=f"closed with {code}"):
            await transport.send([envelope_of("red", 1)])


async def test_a_reset_is_a_target_out_of_reach() -> None:
    async def talk(socket: ServerConnection, message: str) -> None:
        socket.transport.abort()

    async with service(talk) as there, WebSocketTransport(there.url) as transport:
        with pytest.raises(Unreachable, match="lost"):
            await transport.send([envelope_of("red", 1)])


async def test_a_late_answer_is_not_taken_for_that_of_the_next_message() -> None:
    async def talk(socket: ServerConnection, message: str) -> None:
        if '"text":"1"' in message:
            await asyncio.sleep(1.5)
            await socket.send(NOT_TAKEN.decode())
        await socket.send(TAKEN.decode())

    async with service(talk) as there, WebSocketTransport(there.url, deadline_s=1) as transport:
        with pytest.raises(Unreachable, match=r"within 1 s"):
            await transport.send([envelope_of("red", 1)])
        assert await transport.send([envelope_of("red", 2)]) == 1


@pytest.mark.parametrize("status", [302, 401, 404, 429, 503])
async def test_who_is_not_let_in_waits_as_long_as_asked_and_holds_up_nobody(status: int) -> None:
    """A redirect is not followed: it would take the headers elsewhere."""
    asked: list[str] = []

    def judge(socket: ServerConnection, request: Request) -> Response | None:
        asked.append(request.path)
        if "green" in request.path:
            return None
        headers = Headers({"Retry-After": "7", "Location": "/green", "Content-Length": "0"})
        return Response(status, http.HTTPStatus(status).phrase, headers, b"")

    made = Service(take)
    async with serve(made.serve, "127.0.0.1", 0, process_request=judge) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with WebSocketTransport(url) as transport:
            with pytest.raises(Unreachable, match=f"status {status}") as later:
                await transport.send([envelope_of("red", 1)])
            assert later.value.retry_after_s == 7.0
            assert await transport.send([envelope_of("green", 1)]) == 1
    assert asked == ["/?sessionId=red", "/?sessionId=green"]


async def test_connections_are_tried_less_and_less_often_while_nobody_is_there() -> None:
    tried: list[float] = []

    def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.append(time.monotonic())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with WebSocketTransport(url) as transport:
        while len(tried) < 3:
            with pytest.raises(Unreachable):
                await transport.send([envelope_of(f"session {len(tried)}", 1)])
            await asyncio.sleep(0.01)
    server.close()
    await server.wait_closed()
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses[0] >= 0.125 and pauses[1] >= 0.25
