"""The connection's own reading and writing of heads: what Sanic itself would make of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException
from sanic.http import Http
from sanic.response import empty, json, raw, text

from router import DecisionSettings, Namespace
from router.decision import Decider, RequestHead
from router.front import RoutedHttp, RoutedRequest
from tests.router.support.serving import (
    connected,
    listening,
    named,
    request_bytes,
    serving,
)


class Starved(Exception):
    """The head was not whole."""


class Connection:
    """As much of a protocol as the reading of a head needs."""

    def __init__(self, request_class: type[Request], data: bytes) -> None:
        self.app = SimpleNamespace(dispatch=self._dispatch, config=SimpleNamespace(KEEP_ALIVE=True))
        self.request_class = request_class
        self.request_max_size = 10**8
        self.recv_buffer = bytearray(data)
        self.transport = None
        self.state = {"requests_count": 0}
        self.conn_info = None

    async def _dispatch(self, event: str, **_: Any) -> None:
        return None

    async def send(self, data: bytes) -> None:
        return None

    async def receive_more(self) -> None:
        raise Starved


def read(http: type[Http], request_class: type[Request], data: bytes) -> object:
    """Everything that the reading of a head leaves behind, or what it refuses the head with."""
    connection = Connection(request_class, data)
    stream = http(connection)  # type: ignore[no-untyped-call]
    stream.init_for_request()  # type: ignore[no-untyped-call]
    try:
        asyncio.run(stream.http1_request_header())  # type: ignore[no-untyped-call]
    except SanicException as error:
        return type(error), error.status_code
    except Starved:
        return "starved"
    request = stream.request
    return (
        (request.method, request.raw_url, request.version, request.head),
        list(request.headers.items()),
        (stream.keep_alive, stream.head_only, stream.upgrade_websocket, stream.expecting_continue),
        (stream.request_body, stream.request_bytes, stream.request_bytes_left),
        bytes(stream.recv_buffer),
        connection.state,
    )


NAMES = st.sampled_from(
    ("Host", "host ", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Expect", "X")
)
VALUES = st.one_of(
    st.sampled_from(
        ("a.do", "keep-alive", "close", "WebSocket", "5", "-5", "chunked", "100-continue", "", " x")
    ),
    st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n"), max_size=8),
)
LINES = st.lists(st.builds("{}: {}".format, NAMES, VALUES), max_size=5)
FIRST = st.one_of(
    st.builds(
        "{} {} {}".format,
        st.sampled_from(("GET", "head", "POST", "CONNECT", "M-SEARCH")),
        st.sampled_from(("/", "*", "/a?b", "http://a.do/x", "/ü", "a:1")),
        st.sampled_from(("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1")),
    ),
    st.text(st.characters(max_codepoint=255), max_size=12),
)


@settings(max_examples=300, deadline=None)
@given(first=FIRST, lines=LINES, rest=st.binary(max_size=4), whole=st.booleans())
def test_a_head_is_read_as_sanic_reads_it(
    first: str, lines: list[str], rest: bytes, whole: bool
) -> None:
    data = "\r\n".join((first, *lines)).encode("latin-1") + (b"\r\n\r\n" + rest if whole else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Http, "HEADER_MAX_SIZE", 200)
        assert read(RoutedHttp, RoutedRequest, data) == read(Http, RoutedRequest, data)


@settings(max_examples=300, deadline=None)
@given(
    host=st.one_of(
        st.sampled_from(("db.do", "DB.do.", "api.do:80", "x", "", "a@b", "[::1]")),
        st.text(max_size=10),
    ),
    target=st.text("/ab.%2eE?#\\piqdb", max_size=14).map(lambda tail: "/" + tail),
)
def test_the_short_way_to_a_decision_leads_where_the_long_one_does(host: str, target: str) -> None:
    shelf = Namespace("production")
    decider = Decider({"production": shelf}, DecisionSettings())
    decision = decider.decide_plain(host, target)
    if decision is not None:
        assert decision == decider.decide(RequestHead("GET", target, [host]))


def many() -> HTTPResponse:
    response = text("many", headers={"x-a": "1", "content-length": "99"})
    response.add_cookie("a", "1")
    response.add_cookie("b", "2")
    return response


SHAPES: dict[str, Callable[[], HTTPResponse]] = {
    "text": lambda: text("ö"),
    "json": lambda: json({"a": [1, 2]}, status=201),
    "empty": lambda: empty(),
    "nothing": lambda: raw(b"", status=200),
    "status": lambda: raw(b"x", status=599),
    "teapot": lambda: raw(b"x", status=418, content_type="a/b"),
    "split": lambda: text("x", headers={"x-a": "1\r\nSet-Cookie: b=c\0"}),
    "foreign": lambda: text("x", headers={"x-a": "ö"}),
    "own-type": lambda: raw(b"x", headers={"Content-Type": "c/d", "Connection": "odd"}),
    "many": many,
    "unmodified": lambda: empty(status=304),
}


def answering() -> Sanic[Any, Any]:
    """Responses of every shape."""
    app: Sanic[Any, Any] = Sanic(named("shapes"), configure_logging=False)

    async def streamed(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send("a")
        await response.send("b")
        await response.eof()

    async def shape(request: Request, name: str) -> HTTPResponse:
        return SHAPES[name]()

    app.add_route(shape, "/<name:str>", methods=["GET", "HEAD"])
    app.add_route(streamed, "/streamed", methods=["GET", "HEAD"])
    return app


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_response_is_the_one_that_sanic_alone_sends(method: str, version: str) -> None:
    routed, alone = answering(), answering()
    namespace = Namespace("production")
    namespace.register("db", routed)

    async def sent(port: int, shape: str) -> bytes:
        async with connected(port) as client:
            headers = {"Connection": "close"}
            await client.send(request_bytes("db.do", f"/{shape}", method, version, headers))
            # Sanic takes this field out of its own code when it starts, but not here.
            return (await client.reader.read()).replace(b"alt-svc: \r\n", b"")

    async with serving(namespace) as port, listening(alone) as other:
        for shape in (*SHAPES, "streamed"):
            assert await sent(port, shape) == await sent(other, shape), shape
