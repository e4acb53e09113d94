"""From an HTTP request to a WebSocket or not: RFC 6455 section 4.2, raw refusals, plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import shutil
import socket
import ssl
import subprocess
import weakref
from pathlib import Path

import pytest
from sanic.compat import Header
from websockets.asyncio.client import connect

from edge.transport import handshake as rules
from edge.transport.interface import Close
from tests.transport.support import (
    PATIENCE_S,
    TEXT,
    RawClient,
    Recorder,
    Server,
    close_frame,
    handshake,
    masked,
    serving,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "Host": "test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


async def exchange(server: Server, request: bytes) -> bytes:
    """Send a request, read to the end of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


class TestRules:
    """The header rules alone."""

    def test_the_example_of_rfc_6455_section_1_3(self) -> None:
        assert rules.find_fault("GET", "1.1", Header(GOOD)) is None
        assert rules.answer(Header(GOOD)) == (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )

    @pytest.mark.parametrize(
        "changes",
        [
            {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"},
            {"Upgrade": "h2c, websocket"},
            {"Sec-WebSocket-Key": f" {KEY} "},
        ],
    )
    def test_tokens_are_found_in_lists_and_without_case(self, changes: dict[str, str]) -> None:
        assert rules.find_fault("GET", "1.1", Header(GOOD | changes)) is None

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"Upgrade": "h2c"}, 426),
            ({"Upgrade": ""}, 426),
            ({"Connection": "keep-alive"}, 400),
            ({"Sec-WebSocket-Version": "8"}, 426),
            ({"Sec-WebSocket-Version": "13, 8"}, 426),
            ({"Sec-WebSocket-Key": ""}, 400),
            ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
            ({"Sec-WebSocket-Key": KEY[:-2] + "!="}, 400),
            ({"Sec-WebSocket-Key": "schlüssel"}, 400),
        ],
    )
    def test_a_wrong_header_is_a_fault(self, changes: dict[str, str], status: int) -> None:
        fault = rules.find_fault("GET", "1.1", Header(GOOD | changes))
        assert fault is not None
        assert fault.status == status

    @pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    def test_missing_and_doubled_headers_are_faults(self, name: str) -> None:
        without = Header({key: value for key, value in GOOD.items() if key != name})
        assert rules.find_fault("GET", "1.1", without) is not None
        doubled = Header([*GOOD.items(), (name, GOOD[name])])
        assert rules.find_fault("GET", "1.1", doubled) is not None

    def test_only_get_of_http_1_1_upgrades(self) -> None:
        assert rules.find_fault("POST", "1.1", Header(GOOD)) is not None
        assert rules.find_fault("GET", "1.0", Header(GOOD)) is not None

    def test_offered_subprotocols_keep_their_order(self) -> None:
        headers = Header([("Sec-WebSocket-Protocol", "b, a"), ("Sec-WebSocket-Protocol", "c")])
        assert rules.offered_subprotocols(headers) == ["b", "a", "c"]


async def test_a_wrong_handshake_gets_its_answer_and_the_receiver_is_never_called() -> None:
    async with serving() as server:
        wrong = handshake().replace(b"Version: 13", b"Version: 12")
        answer = await exchange(server, wrong.replace(b"Host:", b"Connection: close\r\nHost:"))
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert b"sec-websocket-version: 13\r\n" in answer.lower()
        recorder = await server.recorder()
        assert recorder.calls == []
        assert server.lanes.open_count == 0


async def test_no_extension_is_ever_negotiated() -> None:
    async with serving() as server, connect(server.url, compression="deflate") as client:
        assert client.protocol.extensions == []
        await client.send("plain")
        recorder = await server.recorder()
        assert await recorder.received(1) == [b"plain"]


async def test_a_subprotocol_is_confirmed() -> None:
    async with (
        serving(subprotocol="speech.v1") as server,
        connect(server.url, subprotocols=["other", "speech.v1"]) as client,  # type: ignore[list-item]
    ):
        assert client.subprotocol == "speech.v1"


async def test_a_refusal_is_a_bare_status_line_and_body() -> None:
    async with serving() as server:
        answer = await exchange(server, handshake("/refused"))
        assert answer == b"HTTP/1.1 404 Not Found\r\n\r\nNo such place"


async def test_plain_http_works_beside_and_after_refusals() -> None:
    async with serving() as server:
        await exchange(server, handshake("/refused"))
        request = b"GET /plain HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n"
        last = request.replace(b"keep-alive", b"close")
        answer = await exchange(server, request * 2 + last)
        assert answer.count(b"HTTP/1.1 200 OK") == 3


async def test_a_connection_may_upgrade_after_plain_requests() -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /plain HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nplain")).startswith(b"HTTP/1.1 200 OK")
        client = RawClient(reader, writer)
        client.send(handshake())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        client.send(masked(TEXT, b"hi") + close_frame(1000))
        await client.end()
        recorder = await server.recorder()
        assert await recorder.ended() == Close(1000)
        assert recorder.messages == [b"hi"]


async def test_more_than_a_request_buffer_behind_the_handshake_is_delivered() -> None:
    async with serving() as server:
        many = masked(TEXT, bytes(1000)) * 300
        client = await RawClient.connect(server, first=many)
        await (await server.recorder()).received(300)
        await client.leave()


async def test_a_peer_gone_before_the_upgrade_is_an_end_like_any_other() -> None:
    async with serving() as server:
        server.make = lambda: Recorder(greeting=b"hello")
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(handshake("/stubborn") + masked(TEXT, b"x") * 1000)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        recorder = await server.recorder()
        assert await recorder.ended() == Close(1006)
        assert len(recorder.messages) == 1000
        assert server.lanes.open_count == 0


async def test_small_writes_leave_at_once() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        transport = recorder.socket._transport  # type: ignore[attr-defined]
        handle = transport.get_extra_info("socket")
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        host, port = client.writer.get_extra_info("sockname")
        assert recorder.socket.remote == f"{host}:{port}"
        await client.leave()


async def test_sessions_do_not_run_in_the_context_of_their_http_request() -> None:
    """A task that a session starts would otherwise hold the request as long as it lives."""

    class Watching(Recorder):
        def opened(self, socket: object) -> None:
            super().opened(socket)  # type: ignore[arg-type]
            self.values = [type(value).__name__ for value in contextvars.copy_context().values()]

    async with serving() as server:
        server.make = Watching
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        assert isinstance(recorder, Watching)
        assert "Request" not in recorder.values
        await client.leave()


async def test_a_connection_that_is_over_is_freed_with_its_receiver() -> None:
    async with serving() as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        client.send(close_frame(1000))
        await client.end()
        await recorder.ended()
        gone = weakref.ref(recorder)
        server.recorders.clear()
        del recorder
        async with asyncio.timeout(PATIENCE_S):
            while gone() is not None:
                gc.collect()
                await asyncio.sleep(0.01)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server and of a client that trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command for a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([openssl, *request, *names, *files], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


class TestTls:
    """The same lane inside TLS, which has no half-close."""

    async def test_messages_and_a_clean_close(
        self, certificate: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        async with serving(tls=certificate[0]) as server:
            client = await RawClient.connect(server, tls=certificate[1])
            recorder = await server.recorder()
            client.send(masked(TEXT, b"x" * 100) * 500 + close_frame(4001, "bye"))
            assert await client.until_close() == (4001, "bye")
            assert await recorder.ended() == Close(4001, "bye")
            assert len(recorder.messages) == 500
            await client.leave()

    async def test_a_violation_is_told_before_the_end(
        self, certificate: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        async with serving(tls=certificate[0]) as server:
            client = await RawClient.connect(server, tls=certificate[1])
            client.send(masked(TEXT, b"\xff"))
            assert (await client.until_close())[0] == 1007
            assert (await (await server.recorder()).ended()).code == 1007
            await client.leave()


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "extra", "status"),
    [("/lane", "", b"408"), ("/plain", "Content-Length: 4000\r\n", b"200")],
    ids=["head", "body"],
)
async def test_a_request_that_trickles_in_is_cut_at_its_deadline(
    path: str, extra: str, status: bytes
) -> None:
    """Each byte comes well within the deadline; all of them would take minutes."""
    head = f"GET {path} HTTP/1.1\r\nHost: test\r\n{extra}"
    async with serving() as server:
        server.app.config.REQUEST_TIMEOUT = server.app.config.KEEP_ALIVE_TIMEOUT = 0.5
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        quick, slow = (head, "X: " + "x" * 4000) if not extra else (head + "\r\n", "x" * 4000)
        writer.write(quick.encode())
        trickling = asyncio.create_task(trickle(writer, slow.encode()))
        began_s = asyncio.get_running_loop().time()
        answer = bytearray()
        async with asyncio.timeout(PATIENCE_S):
            # A byte that comes after the end is answered with a reset.
            with contextlib.suppress(ConnectionResetError):
                while more := await reader.read(4096):
                    answer += more
        took_s = asyncio.get_running_loop().time() - began_s
        trickling.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert took_s < 5
        assert not server.recorders


async def test_a_connection_used_again_has_its_deadline_anew() -> None:
    async with serving() as server:
        server.app.config.REQUEST_TIMEOUT = 1.0
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(5):
            writer.write(b"GET /plain HTTP/1.1\r\n")
            await asyncio.sleep(0.3)
            writer.write(b"Connection: keep-alive\r\nHost: test\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nplain")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
