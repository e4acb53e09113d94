"""A connection to a service: its opening, its messages, and every way in which it ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidHandshake, InvalidStatus

from _native import frame_writer, frames
from edge.asr import upstream
from edge.asr.upstream import Ending, Upstream, connect
from tests.asr.support.supervision import until

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


class Ear:
    """Notes what a connection says."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.endings: list[Ending] = []
        self.relieved = 0

    def received(self, message: bytes) -> None:
        assert not self.endings
        if message == b"fault":
            raise ValueError("a fault of the listener")
        self.messages.append(message)

    def writable(self) -> None:
        self.relieved += 1

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)


class Wire:
    """The service's end of one raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = frames.Decoder(1 << 20)
        self.request = b""

    async def accept(self, early: bytes = b"") -> None:
        """Answer the handshake, with frames in the same write."""
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", self.request)
        assert key is not None
        digest = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accepted = b"Sec-WebSocket-Accept: " + base64.b64encode(digest)
        self.writer.write(SWITCHING + accepted + b"\r\n\r\n" + early)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the client, which must be masked."""
        while True:
            if items := self.decoder.decode(b"", 1):
                return items[0]
            data = await self.reader.read(4096)
            assert data, "the client hung up"
            if items := self.decoder.decode(data, 1):
                return items[0]


Script = Callable[[Wire], object]


@asynccontextmanager
async def service(script: Script) -> AsyncIterator[str]:
    """A raw TCP server that runs ``script`` for each connection; gives its address."""
    running: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await script(Wire(reader, writer))  # type: ignore[misc]
        finally:
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1?intent=x"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def opened(url: str, ear: Ear, tls: ssl.SSLContext | None = None) -> Upstream:
    connection = await connect(url, headers={"Authorization": "Bearer k"}, tls=tls)
    connection.listen(ear)
    return connection


async def hold(wire: Wire) -> None:
    """Leave the connection open."""
    await wire.accept()
    await wire.reader.read(-1)


async def test_whatever_is_sent_arrives_in_order_and_before_the_close_frame() -> None:
    """Audio waits for other connections' audio: nothing may overtake it."""
    heard: list[tuple[int, bytes]] = []

    async def script(wire: Wire) -> None:
        await wire.accept()
        while not heard or heard[-1][0] != frames.CLOSE:
            heard.append(await wire.frame())

    async with service(script) as url:
        connection = await opened(url, Ear())
        connection.send_binary(b"1")
        connection.send_text(b"2")
        connection.send_base64(b"<", b"3", b">")
        connection.send_binary(b"4")
        connection.send_binary_many([b"5", b"6"])
        await connection.close()
    payloads = [payload for _, payload in heard[:-1]]
    assert payloads == [b"1", b"2", b"<" + base64.b64encode(b"3") + b">", b"4", b"5", b"6"]


async def test_messages_that_come_with_the_handshake_are_not_lost() -> None:
    async def script(wire: Wire) -> None:
        text = frame_writer.encode(frames.TEXT, b"first")
        await wire.accept(text + frame_writer.encode(frames.BINARY, b"second")[:3])
        wire.writer.write(frame_writer.encode(frames.BINARY, b"second")[3:])
        await wire.frame()

    ear = Ear()
    async with service(script) as url:
        connection = await opened(url, ear)
        assert not ear.messages, "nothing is handed over inside listen"
        await until(lambda: len(ear.messages) == 2)
        await connection.close()
    assert ear.messages == [b"first", b"second"]
    assert not ear.endings, "who closes is not told"


async def test_messages_are_sent_masked_and_headers_go_with_the_request() -> None:
    wires: list[Wire] = []
    got: list[tuple[int, bytes]] = []

    async def script(wire: Wire) -> None:
        wires.append(wire)
        await wire.accept()
        while len(got) < 5:
            got.append(await wire.frame())

    async with service(script) as url:
        connection = await opened(url, Ear())
        connection.send_text(b"hello")
        connection.send_binary(b"\xff\0")
        connection.send_binary_many([b"one", bytes(700)])
        await until(lambda: len(got) == 4)
        await connection.close()
    assert got == [
        (frames.TEXT, b"hello"),
        (frames.BINARY, b"\xff\0"),
        (frames.BINARY, b"one"),
        (frames.BINARY, bytes(700)),
        (frames.CLOSE, b"\x03\xe8"),
    ]
    assert b"GET /v1?intent=x HTTP/1.1\r\n" in wires[0].request
    assert b"Authorization: Bearer k\r\n" in wires[0].request
    assert b"extensions" not in wires[0].request.lower(), "no compression"


async def test_a_refusal_is_told_with_its_headers_even_when_it_comes_in_pieces() -> None:
    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        for piece in (b"HTTP/1.1 429 Slow do", b"wn\r\nRetry-After: 3\r\nContent-Le"):
            wire.writer.write(piece)
            await asyncio.sleep(0.01)
        wire.writer.write(b"ngth: 5\r\n\r\nbu")
        await asyncio.sleep(0.01)
        wire.writer.write(b"sy!")
        await wire.reader.read(-1)

    async with service(script) as url:
        with pytest.raises(InvalidStatus) as refused:
            await opened(url, Ear())
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "3"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        SWITCHING + b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"x" * (upstream.MOST_HEAD_BYTES + 1000),
    ],
)
async def test_an_answer_that_is_no_handshake_is_an_error(answer: bytes) -> None:
    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.writer.write(answer)
        await wire.writer.drain()

    async with service(script) as url:
        with pytest.raises((InvalidHandshake, ConnectionError)):
            await asyncio.wait_for(opened(url, Ear()), 5)


async def test_a_ping_is_answered() -> None:
    got: list[tuple[int, bytes]] = []

    async def script(wire: Wire) -> None:
        await wire.accept(frame_writer.encode(frames.PING, b"are you there"))
        got.append(await wire.frame())

    async with service(script) as url:
        connection = await opened(url, Ear())
        await until(lambda: got)
        await connection.close()
    assert got == [(frames.PONG, b"are you there")]


async def test_a_service_that_answers_no_ping_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PING_S", 0.05)
    pings = 0

    async def script(wire: Wire) -> None:
        nonlocal pings
        await wire.accept()
        for _ in range(3):
            opcode, payload = await wire.frame()
            pings += opcode == frames.PING
            wire.writer.write(frame_writer.encode(frames.PONG, payload))
        await wire.reader.read(-1)

    ear = Ear()
    async with service(script) as url:
        connection = await opened(url, ear)
        await until(lambda: ear.endings)
        await connection.close()
    assert ear.endings == [Ending()]
    assert pings == 3, "each answer kept it alive"


@pytest.mark.parametrize(
    ("sent", "ending", "answer"),
    [
        (frame_writer.encode(frames.CLOSE, b""), Ending(1005, ""), b""),
        (
            frame_writer.encode(frames.CLOSE, frame_writer.close_payload(3000, "no key")),
            Ending(3000, "no key"),
            frame_writer.close_payload(3000, "no key"),
        ),
        (frame_writer.encode_masked(frames.TEXT, b"x", b"abcd"), Ending(), 1002),
        (frame_writer.encode(frames.TEXT, b"\xff"), Ending(), 1007),
        (b"\x82\x7f\0\0\0\0\0\x11\0\0", Ending(), 1009),
        (frame_writer.encode(frames.TEXT, b"fault"), Ending(), 1011),
    ],
)
async def test_every_end_is_told_once_and_answered_with_a_close_frame(
    sent: bytes, ending: Ending, answer: bytes | int
) -> None:
    got: list[tuple[int, bytes]] = []

    async def script(wire: Wire) -> None:
        await wire.accept(frame_writer.encode(frames.TEXT, b"before") + sent)
        got.append(await wire.frame())

    ear = Ear()
    async with service(script) as url:
        connection = await opened(url, ear)
        await until(lambda: ear.endings and got)
        assert not connection.is_writable
        await connection.close()
    assert ear.messages == [b"before"]
    assert ear.endings == [ending]
    opcode, payload = got[0]
    assert opcode == frames.CLOSE
    assert (int.from_bytes(payload[:2], "big") if isinstance(answer, int) else payload) == answer


async def test_a_cut_connection_is_told_as_lost() -> None:
    async def script(wire: Wire) -> None:
        await wire.accept()

    ear = Ear()
    async with service(script) as url:
        connection = await opened(url, ear)
        await until(lambda: ear.endings)
        await connection.close()
        await connection.close()
    assert ear.endings == [Ending()]


async def test_a_service_that_hangs_at_the_close_is_cut_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "CLOSE_S", 0.1)
    async with service(hold) as url:
        connection = await opened(url, Ear())
        began_s = time.monotonic()
        await connection.close()
        assert time.monotonic() - began_s < 1


async def test_a_service_that_says_close_and_stays_is_cut_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "CLOSE_S", 0.1)
    cut = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.accept(frame_writer.encode(frames.CLOSE, frame_writer.close_payload(1000)))
        assert await wire.frame() == (frames.CLOSE, frame_writer.close_payload(1000))
        with pytest.raises((AssertionError, ConnectionError)):
            await wire.frame()
        cut.set()

    ear = Ear()
    async with service(script) as url:
        await opened(url, ear)
        await asyncio.wait_for(cut.wait(), 2)
    assert ear.endings == [Ending(1000)]


async def test_a_service_that_does_not_read_makes_the_connection_unwritable_until_it_does() -> None:
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.accept()
        await go_on.wait()
        await wire.reader.read(-1)

    ear = Ear()
    async with service(script) as url:
        connection = await opened(url, ear)
        sent = 0
        async with asyncio.timeout(10):
            while connection.is_writable:
                connection.send_text(bytes(6400))
                sent += 1
                await asyncio.sleep(0)
        assert sent < 2000, "the buffers in between are bounded"
        assert not ear.relieved
        go_on.set()
        await until(lambda: ear.relieved)
        assert connection.is_writable
        await connection.close()


async def test_cancelling_a_connect_leaves_nothing_open() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        asked.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.reader.readuntil(b"never")
        gone.set()

    async with service(script) as url:
        opening = asyncio.create_task(opened(url, Ear()))
        await asyncio.wait_for(asked.wait(), 5)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_service_behind_tls_is_reached_and_its_certificate_checked(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command for a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(key), "-out", str(cert))
    subprocess.run([openssl, *request, *names, *files], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)

    async def echo(peer: ServerConnection) -> None:
        await peer.send("welcome")
        async for message in peer:
            await peer.send(message)

    ear = Ear()
    async with serve(echo, "127.0.0.1", 0, ssl=tls) as server:
        url = f"wss://localhost:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ssl.SSLCertVerificationError):
            await opened(url, ear)
        connection = await opened(url, ear, ssl.create_default_context(cafile=str(cert)))
        connection.send_text(b"x" * 100_000)
        await until(lambda: len(ear.messages) == 2)
        await connection.close()
    assert ear.messages == [b"welcome", b"x" * 100_000]
