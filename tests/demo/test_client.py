"""Addresses and connections: what a person may type, and the one line they get when it fails."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from edge.demo.client import Disconnected, Unreachable, connected, decode, transcribe_url
from edge.demo.gateway import free_port
from tests.demo.scripted import gateway, result


@pytest.mark.parametrize(
    ("address", "becomes"),
    [
        ("http://host:8080", "ws://host:8080/transcribe"),
        ("https://host/", "wss://host/transcribe"),
        ("host:8080", "ws://host:8080/transcribe"),
        ("ws://host:1/a/transcribe?x=1", "ws://host:1/a/transcribe"),
        ("wss://[::1]:9/transcribe", "wss://[::1]:9/transcribe"),
    ],
)
def test_base_and_whole_addresses_are_taken(address: str, becomes: str) -> None:
    assert transcribe_url(address, {}).partition("?")[0] == becomes


def test_what_the_address_says_wins_over_defaults() -> None:
    url = transcribe_url("ws://h/transcribe?sendBack=false&lang=de", {"sendBack": "true", "a": "b"})
    query = parse_qs(urlsplit(url).query)
    assert query["sendBack"] == ["false"] and query["lang"] == ["de"] and query["a"] == ["b"]
    assert query["sessionId"][0].startswith("edgescribe-")


@pytest.mark.parametrize(
    "address", ["", "ftp://host", "http://", "ws://host:port", "ws://[::1", "a b", "file:///x"]
)
def test_what_is_no_address_is_said_to_be_none(address: str) -> None:
    with pytest.raises(Unreachable, match="is not a gateway's address"):
        transcribe_url(address, {})


async def fails_to_connect(url: str, timeout_s: float = 5) -> str:
    with pytest.raises(Unreachable) as caught:
        async with connected(url, timeout_s=timeout_s):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_refused_connection_asks_whether_a_gateway_runs() -> None:
    port = free_port()
    said = await fails_to_connect(f"ws://127.0.0.1:{port}/transcribe?secret=1")
    assert said == (
        f"cannot connect to ws://127.0.0.1:{port}/transcribe: connection refused;"
        " is a gateway running there?"
    )


async def answering(reply: bytes) -> tuple[asyncio.Server, str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/transcribe"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\nNo transcription output method specified",
            "refused with status 400: No transcription output method specified",
        ),
        (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            "refused with status 503: Service Unavailable",
        ),
        (b"220 mail.example ESMTP\r\n\r\n", "is no WebSocket endpoint"),
        (b"", "is no WebSocket endpoint"),
    ],
)
async def test_a_refusal_is_quoted(reply: bytes, said: str) -> None:
    server, url = await answering(reply)
    async with server:
        assert said in await fails_to_connect(url)


async def test_silence_ends_at_the_deadline() -> None:
    gone = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/transcribe"
        assert "did not answer within 0.2 s" in await fails_to_connect(url, timeout_s=0.2)
        await gone.wait()


async def test_a_close_by_the_gateway_is_told_with_its_reason() -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.close(1002, "Invalid provider: x")

    async with gateway(refuse) as address:
        with pytest.raises(Disconnected, match=r"closed the connection: 1002 Invalid provider: x"):
            async with connected(f"ws://{address}/transcribe") as socket:
                await socket.recv()


def test_results_are_read_with_what_they_hold() -> None:
    message = decode(result("hello", start_ms=120, end_ms=900))
    assert message is not None and message.is_result and not message.is_interim
    assert (message.text, message.speaker, message.confidence) == ("hello", "abcdef01-1", 0.9)
    assert (message.start_ms, message.end_ms) == (120, 900)


@pytest.mark.parametrize("data", ["", "[]", "{", b"\xff", '{"event":1}'])
def test_what_is_no_message_is_none(data: str | bytes) -> None:
    assert decode(data) is None
