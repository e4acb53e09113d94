"""What a table of vectors cannot hold: bodies, streams and failures, for each kind of service."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import REGISTRY
from sanic import HTTPResponse, Request, Sanic
from sanic.response import raw, text

from router import DecisionSettings, Limits, Namespace, RouterSettings, Service
from router.asgi import AsgiService
from router.sanic_service import SanicService
from tests.router.support.serving import (
    Client,
    asgi_service,
    connected,
    listening,
    named,
    request_bytes,
    sanic_service,
    serving,
)
from tests.router.support.tls import context_for, trusted

MAY_GROW = 4 * 1024 * 1024
KINDS = ("sanic", "asgi", "remote", "remote-tls", "remote-asgi")


class Watched(SimpleNamespace):
    """What happened within a service."""

    def __init__(self) -> None:
        super().__init__(
            go=asyncio.Event(), began=asyncio.Event(), cancelled=asyncio.Event(), taken=0
        )


def sanic_app(watched: Watched) -> Sanic[Any, Any]:
    app: Sanic[Any, Any] = Sanic(named("service"), configure_logging=False)

    @app.post("/echo")
    async def echo(request: Request) -> HTTPResponse:
        return raw(request.body, headers={"x-seen": request.headers["x-custom"]})

    @app.get("/own")
    async def own(request: Request) -> HTTPResponse:
        return text("mine", status=503)

    @app.get("/stream")
    async def stream(request: Request) -> None:
        response = await request.respond(content_type="text/event-stream")
        await response.send("data: 1\n\n")
        await until(watched.go, watched)
        await response.send("data: 2\n\n")
        await response.eof()

    @app.get("/breaks")
    async def breaks(request: Request) -> None:
        response = await request.respond()
        await response.send("first")
        raise RuntimeError("boom")

    @app.post("/slow", stream=True)
    async def slow(request: Request) -> HTTPResponse:
        watched.began.set()
        await watched.go.wait()
        while (data := await request.stream.read()) is not None:
            watched.taken += len(data)
        return text(str(watched.taken))

    @app.get("/hang")
    async def hang(request: Request) -> HTTPResponse:
        watched.began.set()
        await until(watched.go, watched)
        return text("done")

    return app


async def until(event: asyncio.Event, watched: Watched) -> None:
    try:
        await event.wait()
    except asyncio.CancelledError:
        watched.cancelled.set()
        raise


def asgi_app(watched: Watched) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        assert scope["type"] == "http", "no WebSockets here"
        path = scope["path"]

        async def start(*headers: tuple[bytes, bytes], status: int = 200, **more: Any) -> None:
            event = {"type": "http.response.start", "status": status, "headers": headers}
            await send(event | more)

        async def body(data: bytes, more: bool = False) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        if path == "/echo":
            taken = b""
            while (event := await receive())["type"] == "http.request":
                taken += event["body"]
                if not event["more_body"]:
                    break
            seen = dict(scope["headers"])[b"x-custom"]
            await start((b"x-seen", seen))
            await body(taken)
        elif path == "/own":
            await start(status=503)
            await body(b"mine")
        elif path == "/stream":
            await start((b"content-type", b"text/event-stream"), trailers=True)
            await body(b"data: 1\n\n", True)
            await until(watched.go, watched)
            await body(b"data: 2\n\n")
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"3")]})
        elif path == "/breaks":
            await start()
            await body(b"first", True)
            raise RuntimeError("boom")
        elif path == "/slow":
            watched.began.set()
            await watched.go.wait()
            more = True
            while more:
                event = await receive()
                watched.taken += len(event["body"])
                more = event["more_body"]
            await start()
            await body(str(watched.taken).encode())
        elif path == "/hang":
            watched.began.set()
            await until(watched.go, watched)
            await start()
            await body(b"done")
        else:
            await start(status=404)
            await body(b"")

    return app


@contextlib.asynccontextmanager
async def routed(
    kind: str, watched: Watched, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[int]:
    """A router whose service ``db`` is of one kind."""
    namespace = Namespace("production")
    told = RouterSettings(expose_errors=True, **settings)
    async with contextlib.AsyncExitStack() as stack:
        source: Any = (sanic_app if "asgi" not in kind else asgi_app)(watched)
        if kind.startswith("remote"):
            scheme, options = "http", {}
            if kind == "remote-tls":
                stack.enter_context(trusted())
                scheme, options = "https", {"ssl": context_for("127.0.0.1")}
            if kind == "remote-asgi":
                behind = Namespace("production")
                behind.register("db", source)
                port = await stack.enter_async_context(serving(behind))
            else:
                port = await stack.enter_async_context(listening(source, **options))
            source = f"{scheme}://127.0.0.1:{port}"
        namespace.register("db", source, limits=limits)
        yield await stack.enter_async_context(serving(namespace, settings=told))


@pytest.fixture
async def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_and_headers_pass_unchanged(
    kind: str, chunked: bool, watched: Watched
) -> None:
    body = bytes(range(256)) * 1000
    async with routed(kind, watched) as port, connected(port) as client:
        headers = {"X-Custom": "as it is", "Authorization": "Bearer x"}
        for _ in range(2):
            if chunked:
                coded = b"".join(
                    b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])
                )
                head = request_bytes(
                    "db.do", "/echo", "POST", headers=headers | {"Transfer-Encoding": "chunked"}
                )
                await client.send(head + coded + b"0\r\n\r\n")
                reply = await client.reply()
            else:
                reply = await client.ask("db.do", "/echo", "POST", headers=headers, body=body)
            assert (reply.status, reply.body) == (200, body)
            assert reply.headers["x-seen"] == "as it is"


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_of_the_service_itself_pass(kind: str, watched: Watched) -> None:
    async with routed(kind, watched) as port, connected(port) as client:
        reply = await client.ask("db.do", "/own")
        assert (reply.status, reply.body) == (503, b"mine")
        reply = await client.ask("db.do", "/nothing")
        assert reply.status == 404 and b"available_services" not in reply.body


@pytest.mark.parametrize("kind", KINDS)
async def test_w5_an_upgrade_of_a_service_without_sockets_gets_its_own_answer(
    kind: str, watched: Watched
) -> None:
    async with routed(kind, watched) as port, connected(port) as client:
        reply = await client.ask(
            "db.do", "/own", headers={"Upgrade": "websocket", "Connection": "Upgrade"}
        )
        assert (reply.status, reply.body) == (503, b"mine")


def resident_bytes() -> int:
    """Memory of this process: client, router and service."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.parametrize("kind", KINDS)
async def test_w6_an_upload_to_a_slow_service_holds_the_client_back(
    kind: str, watched: Watched
) -> None:
    size, chunk = 64 * 1024 * 1024, b"10000\r\n" + bytes(65536) + b"\r\n"
    async with routed(kind, watched) as port, connected(port) as client:
        headers = {"Transfer-Encoding": "chunked"}
        await client.send(request_bytes("db.do", "/slow", "POST", headers=headers))
        await watched.began.wait()
        sent, before = 0, resident_bytes()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while sent < size:
                    sent += 65536
                    await client.send(chunk)
        assert sent < size // 4
        watched.go.set()
        grown = resident_bytes() - before
        while sent < size:
            sent += 65536
            await client.send(chunk)
            grown = max(grown, resident_bytes() - before)
        assert grown < MAY_GROW
        await client.send(b"0\r\n\r\n")
        assert (await client.reply()).body == str(size).encode()


@pytest.mark.parametrize("kind", KINDS)
async def test_w7_w8_pieces_pass_as_they_are_made_and_trailers_after_them(
    kind: str, watched: Watched
) -> None:
    async with routed(kind, watched) as port, connected(port) as client:
        await client.send(request_bytes("db.do", "/stream"))
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert await client.chunk() == b"data: 1\n\n"
        watched.go.set()
        assert await client.chunk() == b"data: 2\n\n"
        assert await client.chunk() == b""
        end = await client.reader.readuntil(b"\r\n")
        assert end == (b"x-sum: 3\r\n" if "asgi" in kind else b"\r\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["/stream", "/hang"])
async def test_w7_a_client_that_leaves_cancels_the_service(
    kind: str, target: str, watched: Watched
) -> None:
    async with routed(kind, watched) as port:
        async with connected(port) as client:
            await client.send(request_bytes("db.do", target))
            if target == "/stream":
                await client.head()
                await client.chunk()
            else:
                await watched.began.wait()
        await asyncio.wait_for(watched.cancelled.wait(), 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_w9_continue_is_said_only_after_routing(kind: str, watched: Watched) -> None:
    expecting = {"Expect": "100-continue", "X-Custom": "x", "Content-Length": "3"}
    async with routed(kind, watched) as port:
        async with connected(port) as client:
            await client.send(request_bytes("no.do", "/echo", "POST", headers=expecting))
            assert await client.reader.readline() == b"HTTP/1.1 404 Not Found\r\n"
            assert (await client.reader.read()).endswith(b"}")
        async with connected(port) as client:
            await client.send(request_bytes("db.do", "/echo", "POST", headers=expecting))
            assert (await client.head())[0] == 100
            await client.send(b"abc")
            assert (await client.reply()).body == b"abc"


@pytest.mark.parametrize("kind", ["sanic", "asgi", "remote-asgi"])
async def test_w10_a_service_that_breaks_off_cuts_the_connection(
    kind: str, watched: Watched
) -> None:
    async with routed(kind, watched) as port, connected(port) as client:
        await client.send(request_bytes("db.do", "/breaks"))
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await client.reader.read(4096):
                rest += data
        assert b"0\r\n\r\n" not in rest and b"error" not in rest


async def test_w11_a_refused_body_leaves_the_connection_in_step(watched: Watched) -> None:
    async with routed("asgi", watched) as port, connected(port) as client:
        body = bytes(10 * 1024 * 1024)
        sending = asyncio.ensure_future(
            client.send(
                request_bytes("no.do", "/x", "POST", body=body) + request_bytes("db.do", "/own")
            )
        )
        first, second = await client.reply(), await client.reply()
        await sending
        assert (first.status, second.status, second.body) == (404, 503, b"mine")


async def test_w12_hosts_may_differ_on_one_connection() -> None:
    namespace = Namespace("production")
    namespace.register("db", asgi_service("db"))
    namespace.register("auth", sanic_service("auth"))
    async with serving(namespace) as port, connected(port) as client:
        for name in ("db", "auth", "db"):
            reply = await client.ask(f"{name}.do", "/x")
            assert msgspec.json.decode(reply.body)["service"] == name


@pytest.mark.parametrize("kind", ["sanic", "asgi"])
async def test_w13_replacing_under_load_fails_nothing(kind: str) -> None:
    make: Callable[[str], Any] = sanic_service if kind == "sanic" else asgi_service
    namespace = Namespace("production")
    namespace.register("db", make("v0"))
    seen: set[str] = set()
    stop = asyncio.Event()
    async with serving(namespace) as port:

        async def load() -> None:
            async with connected(port) as client:
                while not stop.is_set():
                    reply = await client.ask("db.do", "/x")
                    assert reply.status == 200
                    seen.add(msgspec.json.decode(reply.body)["service"])

        clients = [asyncio.ensure_future(load()) for _ in range(8)]
        for number in range(1, 6):
            await namespace.replace("db", make(f"v{number}"))
            async with asyncio.timeout(5):
                while f"v{number}" not in seen:
                    await asyncio.sleep(0.001)
        stop.set()
        await asyncio.gather(*clients)


async def test_a_replaced_service_ends_what_it_has_begun(watched: Watched) -> None:
    old = AsgiService(asgi_app(watched))
    namespace = Namespace("production")
    namespace.register("db", old)
    async with serving(namespace) as port, connected(port) as client:
        await client.send(request_bytes("db.do", "/hang"))
        await watched.began.wait()
        await namespace.replace("db", asgi_service("new"))
        async with connected(port) as other:
            assert b"new" in (await other.ask("db.do")).body
        watched.go.set()
        assert (await client.reply()).body == b"done"


@pytest.mark.parametrize("kind", KINDS)
async def test_limits_answer_429_and_413(kind: str, watched: Watched) -> None:
    limits = Limits(max_concurrency=1, max_body=1000)
    async with routed(kind, watched, limits) as port, connected(port) as first:
        await first.send(request_bytes("db.do", "/hang"))
        await watched.began.wait()
        async with connected(port) as second:
            reply = await second.ask("db.do", "/own")
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        watched.go.set()
        assert (await first.reply()).body == b"done"
        large = await first.ask("db.do", "/slow", "POST", body=bytes(1001))
        assert large.status == 413
        async with connected(port) as chunked:
            headers = {"Transfer-Encoding": "chunked"}
            head = request_bytes("db.do", "/slow", "POST", headers=headers)
            await chunked.send(head + b"3e9\r\n" + bytes(1001) + b"\r\n0\r\n\r\n")
            assert (await chunked.reply()).status == 413


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_takes_too_long_is_ended(kind: str, watched: Watched) -> None:
    async with (
        routed(kind, watched, Limits(wall_ms=100)) as port,
        connected(port) as client,
    ):
        assert (await client.ask("db.do", "/hang")).status == 429
        await asyncio.wait_for(watched.cancelled.wait(), 1)


@pytest.mark.parametrize("make", [sanic_service, asgi_service])
async def test_hidden_errors_leave_a_request_id_alone(make: Callable[..., Any]) -> None:
    namespace = Namespace("production")
    namespace.register("db", make("db", "secret"))
    async with (
        serving(namespace, settings=RouterSettings()) as port,
        connected(port) as client,
    ):
        reply = await client.ask("db.do", "/x")
    told = msgspec.json.decode(reply.body)
    assert reply.status == 500
    assert list(told) == ["error", "message", "request_id"]
    assert told["message"] == "Unknown error"


async def test_an_upstream_that_is_away_is_an_error_of_the_service() -> None:
    namespace = Namespace("production")
    namespace.register("db", "http://127.0.0.1:1")
    async with serving(namespace) as port, connected(port) as client:
        reply = await client.ask("db.do", "/x")
    assert reply.status == 500 and b"cannot be reached" in reply.body


async def test_a_dead_pooled_connection_is_replaced(watched: Watched) -> None:
    async with contextlib.AsyncExitStack() as stack:
        accepted: list[asyncio.StreamWriter] = []

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(once, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        namespace = Namespace("production")
        namespace.register("db", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        port = await stack.enter_async_context(serving(namespace))
        client: Client = await stack.enter_async_context(connected(port))
        for _ in range(3):
            assert (await client.ask("db.do", "/x")).body == b"ok"
        assert len(accepted) == 3


async def test_a_service_that_comes_back_while_it_retires_goes_on(watched: Watched) -> None:
    stops: list[str] = []

    class Stopping(AsgiService):
        async def stop(self) -> None:
            stops.append("stopped")
            await super().stop()

    service = Stopping(asgi_app(watched))
    namespace = Namespace("production")
    namespace.register("db", service)
    async with serving(namespace) as port, connected(port) as client:
        await client.send(request_bytes("db.do", "/hang"))
        await watched.began.wait()
        await namespace.replace("db", asgi_service("other"))
        await namespace.replace("db", service)
        await namespace.replace("db", service)
        watched.go.set()
        assert (await client.reply()).body == b"done"
        assert (await client.ask("db.do", "/own")).body == b"mine"
        assert stops == []
    assert stops == ["stopped"]


async def test_tasks_that_outlive_their_responses_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.asgi.MAX_LEFT", 3)
    living: list[int] = []
    over: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        number = len(living) + len(over)
        living.append(number)
        try:
            await asyncio.Event().wait()
        finally:
            living.remove(number)
            over.append(number)

    namespace = Namespace("production")
    namespace.register("db", app)
    async with serving(namespace) as port, connected(port) as client:
        for _ in range(8):
            assert (await client.ask("db.do")).status == 200
        while len(over) < 5:
            await asyncio.sleep(0.001)
        assert (living, over) == ([5, 6, 7], [0, 1, 2, 3, 4])
    assert living == []


async def test_requests_are_counted_by_what_became_of_them(watched: Watched) -> None:
    def value(outcome: str, service: str, environment: str = "counted") -> float:
        labels = {"env": environment, "service": service, "outcome": outcome}
        return REGISTRY.get_sample_value("router_requests_total", labels) or 0.0

    def decided() -> float:
        return REGISTRY.get_sample_value("router_overhead_seconds_count") or 0.0

    namespace = Namespace("counted")
    namespace.register("db", asgi_app(watched), limits=Limits(max_body=10))
    namespace.register("auth", sanic_service("auth", "boom"))
    decision = DecisionSettings(environment="counted")
    before = decided()
    async with (
        serving(namespace, settings=RouterSettings(decision=decision)) as port,
        connected(port) as client,
    ):
        for host in ("db.do", "db.do:80", "auth.do", "queue.do", "no.do"):
            await client.ask(host, "/own")
        await client.ask("db.do", "/slow", "POST", body=bytes(11))
        async with connected(port) as other:
            await other.ask("a@b")
        async with asyncio.timeout(3):
            while decided() < before + 7:
                await asyncio.sleep(0.01)
    assert value("ok", "db") == 2
    assert value("over_limit", "db") == 1
    assert value("dispatch_error", "auth") == 1
    assert value("not_deployed", "queue") == 1
    assert value("not_found", "") == 1
    assert value("bad_request", "", "") >= 1
    below = REGISTRY.get_sample_value("router_overhead_seconds_bucket", {"le": "0.01"})
    assert below is not None and below >= before + 6


async def test_a_trusted_proxy_tells_the_host() -> None:
    namespace = Namespace("production")
    for name in ("db", "auth"):
        namespace.register(name, asgi_service(name))
    for proxies, service in ((("127.0.0.0/8",), "db"), (("10.0.0.0/8",), "auth")):
        settings = RouterSettings(decision=DecisionSettings(trusted_proxies=proxies))
        async with serving(namespace, settings=settings) as port, connected(port) as client:
            reply = await client.ask("auth.do", headers={"X-Forwarded-Host": "db.do"})
            assert msgspec.json.decode(reply.body)["service"] == service


async def test_a_failure_is_logged_with_the_id_that_the_client_is_told() -> None:
    namespace = Namespace("production")
    namespace.register("db", asgi_service("db", "secret"))
    with structlog.testing.capture_logs() as logs:
        async with (
            serving(namespace, settings=RouterSettings()) as port,
            connected(port) as client,
        ):
            told = msgspec.json.decode((await client.ask("db.do")).body)
    (line,) = [log for log in logs if log["event"] == "Dispatch error"]
    assert (line["service"], line["environment"]) == ("db", "production")
    assert line["request_id"] == told["request_id"]
    assert list(told) == ["error", "message", "request_id"]


async def test_services_call_each_other_by_their_names() -> None:
    class Queue:
        async def push(self, item: str) -> str:
            return f"pushed {item}"

        def size(self) -> int:
            return 3

    from router.errors import BindingUnavailable, ServiceNotDeployed

    app = sanic_service("queue")
    app.ctx.binding = Queue()
    namespace = Namespace("production")
    queue = namespace.get("queue")
    with pytest.raises(ServiceNotDeployed):
        await queue.push("x")
    namespace.register("queue", app)
    namespace.register("db", "http://127.0.0.1:1")
    assert await queue.push("x") == "pushed x"
    assert await queue.size() == 3
    with pytest.raises(BindingUnavailable):
        await queue.pop()
    with pytest.raises(BindingUnavailable):
        await namespace.get("db").query()
    with pytest.raises(AttributeError):
        _ = queue._name_of_nothing


async def test_a_service_that_cannot_start_replaces_nothing() -> None:
    from router.errors import ServiceFailed

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    namespace = Namespace("production")
    namespace.register("db", asgi_service("old"))
    async with serving(namespace) as port, connected(port) as client:
        with pytest.raises(ServiceFailed, match="no disk"):
            await namespace.replace("db", broken)
        with pytest.raises(ServiceFailed, match="nowhere"):
            await namespace.replace("db", "nowhere.at.all:app")
        assert b"old" in (await client.ask("db.do")).body
        await namespace.remove("db")
        assert b"not deployed" in (await client.ask("db.do")).body


def test_services_are_told_apart() -> None:
    service: Service = SanicService(sanic_service("db"))
    namespace = Namespace("production")
    namespace.register("db", service, tags=())
    assert namespace.find("db") is service and list(namespace) == ["db"]
