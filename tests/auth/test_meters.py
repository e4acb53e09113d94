"""What is remembered of keys, clients and key sets follows them, and does not grow without end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge.auth import quota, tokens
from edge.auth.addresses import client_of
from edge.auth.grants import USUAL, Allowance, Grant
from edge.auth.quota import Quotas
from edge.auth.settings import AuthSettings
from edge.auth.tokens import Tokens
from edge.errors import SettingError
from edge.logs import hide_in_text
from edge.session.store.opening import open_store
from edge.transport.interface import Socket

EC = ec.generate_private_key(ec.SECP256R1())
Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Spoken:
    """A track that has taken some audio."""

    def __init__(self, heard_ms: float) -> None:
        self.heard_ms = heard_ms

    def stop(self, message: str) -> None:
        raise AssertionError(message)


def grant(name: str, **more: object) -> Grant:
    return Grant(name=name, scopes=USUAL, **more)  # type: ignore[arg-type]


def quotas(folder: Path) -> Quotas:
    """Those of a store that is not opened: nothing is added up."""
    store = open_store(str(folder / "unused.db"))
    return Quotas(store, Allowance(requests_per_s=5), lambda key_id: True)


def test_limits_of_a_key_are_those_it_has_now(tmp_path: Path) -> None:
    all_ = quotas(tmp_path)
    assert all_.meter(grant("a")).allowance == Allowance(requests_per_s=5)
    changed = grant("a", allowance=Allowance(tracks=2, requests_per_s=9))
    assert all_.meter(changed).allowance == Allowance(tracks=2, requests_per_s=9)


def test_meters_that_are_idle_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a token has used of its own audio is remembered for as long as it is good."""
    monkeypatch.setattr(quota, "MOST_METERS", 4)
    all_ = quotas(tmp_path)
    bounded = {"audio_s": 60.0, "meter": "bounded"}
    spent = all_.meter(grant("t", expires_unix_s=time.time() + 60, **bounded))
    over = all_.meter(grant("t", expires_unix_s=0.0, audio_s=60.0, meter="over"))
    for meter in (spent, over, all_.meter(grant("b"))):
        track = Spoken(30_000)
        meter.open(track)
        meter.close(track)
    busy = all_.meter(grant("busy"))
    busy.join(cast(Socket, object()), None)
    all_.meter(grant("one more"))
    assert set(all_._meters) == {"bounded", "busy", "one more"}


def test_failures_are_counted_by_subscriber() -> None:
    assert client_of("192.0.2.7") == "192.0.2.7"
    assert client_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert client_of("2001:db8:1:2::3") == client_of("2001:db8:1:2:ffff::9%eth0")
    assert client_of("2001:db8:1:2::3") != client_of("2001:db8:1:3::3")
    assert client_of("") == ""


@pytest.mark.parametrize(
    "secret",
    [
        "esk_0123456789ab_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789_-AbCdE",
        "room." + 64 * "a",
        jwt.encode({"exp": 4_000_000_000}, "k" * 32, "HS256"),
    ],
)
def test_keys_and_tokens_are_blanked_wherever_a_text_has_them(secret: str) -> None:
    for text in (f"offered edgescribe.key.{secret}", f"key={secret},", f"'{secret}' was shown"):
        assert secret[-20:] not in hide_in_text(text)
    assert hide_in_text("a room. esk eyJ") == "a room. esk eyJ"


@pytest.mark.parametrize("url", ["http://keys.example/set", "keys.example", "file:///set", "http:"])
def test_a_key_set_is_asked_for_over_tls_or_on_this_machine(url: str) -> None:
    with pytest.raises(SettingError, match="https"):
        Tokens(AuthSettings(jwt_jwks_url=url))


@pytest.fixture
async def served() -> AsyncIterator[Callable[[Serve], Awaitable[Tokens]]]:
    """Tokens that are believed by what a function writes after the head of an answer."""
    servers = []
    believers = []

    async def start(serve: Serve) -> Tokens:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            with suppress(ConnectionError, asyncio.CancelledError):
                await serve(writer)
            writer.close()

        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        port = servers[-1].sockets[0].getsockname()[1]
        believers.append(Tokens(AuthSettings(jwt_jwks_url=f"http://127.0.0.1:{port}/keys")))
        return believers[-1]

    yield start
    for believer in believers:
        await believer.stop()
    for server in servers:
        server.close()


def shown() -> str:
    return jwt.encode({"exp": time.time() + 600}, EC, "ES256", headers={"kid": "one"})


async def test_a_key_set_may_come_in_pieces(served: Callable[[Serve], Awaitable[Tokens]]) -> None:
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key()))
    body = json.dumps({"keys": [{**jwk, "kid": "one", "alg": "ES256"}]}).encode()

    async def in_pieces(writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(body), 40):
            writer.write(body[start : start + 40])
            await writer.drain()
            await asyncio.sleep(0.002)

    believer = await served(in_pieces)
    assert await believer.find(shown()) is not None


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'{"keys":5}', b"\xff", b"[" * 9000])
async def test_what_is_no_key_set_is_no_failure_of_ours(
    served: Callable[[Serve], Awaitable[Tokens]], body: bytes
) -> None:
    async def odd(writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        await writer.drain()

    believer = await served(odd)
    assert await believer.find(shown()) is None


async def test_a_key_set_without_end_is_given_up(
    served: Callable[[Serve], Awaitable[Tokens]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its size, or at the deadline when nothing comes; many who ask wait together."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    assert await (await served(endless)).find(shown()) is None

    asked = 0

    async def hanging(writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)

    monkeypatch.setattr(tokens, "DEADLINE_S", 1.0)
    believer = await served(hanging)
    async with asyncio.timeout(10):
        found = await asyncio.gather(*(believer.find(shown()) for _ in range(20)))
    assert found == [None] * 20 and asked == 1
