"""Whatever a webhook answers is a delivery, a refusal or a reason to come again, within bounds."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import msgspec
import pytest
from aiohttp import web

from dispatch import Refused, Unreachable
from dispatch.transports.http import HttpTransport
from tests.dispatch.support.targets import TAKEN, envelope_of

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SECRET = b"a secret of the test"


@asynccontextmanager
async def webhook(handler: Handler) -> AsyncIterator[str]:
    """The URL of a server whose every request the handler answers."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/dispatch"
    await runner.cleanup()


@asynccontextmanager
async def raw_webhook(answer: bytes, *, reset: bool = False) -> AsyncIterator[str]:
    """The URL of a server that answers with these bytes, whatever they are, and hangs up."""

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if reset:
            writer.transport.abort()
        writer.close()

    server = await asyncio.start_server(answering, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    server.close()
    await server.wait_closed()


async def post(url: str, **options: float) -> int:
    async with HttpTransport(url, **options) as transport:  # type: ignore[arg-type]
        return await transport.send([envelope_of("red", 1), envelope_of("red", 2)])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422, 451])
async def test_a_fault_of_the_message_is_not_tried_again(status: int) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    async with webhook(handler) as url:
        with pytest.raises(Refused, match=f"status {status}") as refused:
            await post(url)
    assert refused.value.final


@pytest.mark.parametrize("status", [500, 501, 507])
async def test_a_fault_of_the_receiver_is_tried_again_some_times(status: int) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    async with webhook(handler) as url:
        with pytest.raises(Refused) as refused:
            await post(url)
    assert not refused.value.final


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
@pytest.mark.parametrize("form", ["none", "seconds", "date", "nonsense"])
async def test_not_now_is_waited_for_as_long_as_the_receiver_asks(status: int, form: str) -> None:
    said = {"seconds": "7", "date": formatdate(time.time() + 7, usegmt=True), "nonsense": "soon"}

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Retry-After": said[form]} if form in said else {}
        return web.Response(status=status, headers=headers)

    async with webhook(handler) as url:
        with pytest.raises(Unreachable) as later:
            await post(url)
    expected = 7.0 if form in ("seconds", "date") else None
    assert later.value.retry_after_s == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_loses_nothing(status: int) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with webhook(handler) as url:
        with pytest.raises(Unreachable, match="redirects are not followed"):
            await post(url)
    assert asked == ["/dispatch"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"<html>",
        b"[]",
        b'{"success": true}',
        b'{"success": "yes", "dispatched": 1}',
        b'{"success": false, "dispatched": 0}',
        b"\xff\xfe",
        b"[" * 10_000,
        b" " * 100_000 + TAKEN,
        gzip.compress(TAKEN),
    ],
    ids=range(11),
)
async def test_an_answer_that_does_not_say_success_is_none(body: bytes) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body)

    async with webhook(handler) as url:
        with pytest.raises(Refused) as refused:
            await post(url)
    assert not refused.value.final


async def test_a_packed_answer_is_not_unpacked() -> None:
    """A thousand bytes could become a gigabyte."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=gzip.compress(TAKEN), headers={"Content-Encoding": "gzip"})

    async with webhook(handler) as url:
        with pytest.raises(Refused):
            await post(url)


async def test_an_answer_that_has_no_end_is_not_read_to_it() -> None:
    sent = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 8192)
            sent += 8192

    async with webhook(handler) as url:
        with pytest.raises(Refused, match="longer than"):
            await post(url)
    assert sent < 16 << 20


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(len(TAKEN)):
            await response.write(TAKEN[start : start + 1])
            await asyncio.sleep(0)
        return response

    async with webhook(handler) as url:
        assert await post(url) == 1


@pytest.mark.parametrize(
    ("answer", "reset"),
    [
        (b"", True),
        (b"", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", False),
    ],
    ids=["reset", "hang-up", "cut off", "not HTTP", "huge header"],
)
async def test_a_broken_answer_is_a_target_out_of_reach(answer: bytes, reset: bool) -> None:
    async with raw_webhook(answer, reset=reset) as url:
        with pytest.raises(Unreachable):
            await post(url)


async def test_an_answer_that_drips_is_over_at_the_deadline() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    start_s = time.monotonic()
    async with webhook(handler) as url:
        with pytest.raises(Unreachable, match=r"within 0\.2 s"):
            await post(url, deadline_s=0.2)
    assert time.monotonic() - start_s < 5


async def test_what_a_request_says_and_how_it_is_signed() -> None:
    """Computed by ``hmac`` and by OpenSSL from what was received, as a receiver would."""
    seen: list[tuple[dict[str, str], bytes]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((dict(request.headers), await request.read()))
        return web.Response(body=TAKEN)

    envelope = msgspec.structs.replace(
        envelope_of("red", 1, "grüße", attempt=3), message_id="a\r\nb é%:1", epoch="e7"
    )
    async with (
        webhook(handler) as url,
        HttpTransport(url, headers={"Authorization": "Bearer x"}, secret=SECRET) as transport,
    ):
        assert await transport.send([envelope]) == 1
    [(headers, body)] = seen
    assert body == envelope.body
    assert headers["Authorization"] == "Bearer x"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "a%0D%0Ab%20%C3%A9%25:1"
    assert (headers["X-Attempt"], headers["X-Epoch"]) == ("3", "e7")
    assert headers["X-Enqueued-At"] == "1700000000000"
    at, _, digest = headers["X-Signature"].removeprefix("t=").partition(",v1=")
    assert abs(time.time() - int(at)) < 10
    signed = at.encode() + b"." + body
    assert digest == hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    command = ["openssl", "dgst", "-sha256", "-hmac", SECRET.decode(), "-r"]
    made = subprocess.run(command, input=signed, capture_output=True, check=True)
    assert made.stdout.split()[0].decode() == digest


async def test_cookies_are_not_kept() -> None:
    cookies: list[str | None] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(body=TAKEN, headers={"Set-Cookie": "a=b"})

    async with webhook(handler) as url, HttpTransport(url) as transport:
        for offset in (1, 2):
            await transport.send([envelope_of("red", offset)])
    assert cookies == [None, None]
