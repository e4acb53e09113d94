"""Wrong credentials count for whom a trusted proxy passes on, and nobody can say so but a proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from edge.auth.addresses import Proxies
from edge.errors import SettingError
from tests.support.server import Server, edgescribe, running

KEY = "a-good-key-0123456789"
ANN, BOB = "203.0.113.1", "203.0.113.2"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", [ANN], ANN),
        ("10.0.0.1", [f"{BOB}, {ANN}"], ANN),
        ("10.0.0.1", [BOB, f" {ANN} ,10.9.9.9"], ANN),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("::ffff:10.0.0.1", [ANN], ANN),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", [f"{ANN}, no address, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        (BOB, [ANN], BOB),
        ("", [ANN], ""),
    ],
)
def test_the_last_that_is_no_proxy_is_the_client(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies(("10.0.0.0/8", "fd00::1")).client(peer, forwarded) == client
    assert Proxies(()).client(peer, forwarded) == peer


def test_what_is_no_address_is_told_by_name() -> None:
    with pytest.raises(SettingError, match="trusted_proxies"):
        Proxies(("10.0.0.0/8", "proxy.example"))
    refused = edgescribe("serve", environment={"EDGESCRIBE_TRUSTED_PROXIES": "proxy.example"})
    assert refused.returncode != 0 and "trusted_proxies" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.fixture
def server() -> Iterator[Server]:
    environment = {
        "EDGESCRIBE_API_KEYS": KEY,
        "EDGESCRIBE_TRUSTED_PROXIES": "127.0.0.1",
        "EDGESCRIBE_FAILED_LOGINS_PER_MINUTE": "3",
        "EDGESCRIBE_ENABLE_DUMMY_PROVIDER": "true",
        "PROVIDERS_PRIORITY": "dummy",
    }
    with running("--workers", "1", environment=environment) as server:
        yield server


async def test_one_who_guesses_behind_a_proxy_holds_up_nobody_else_there(server: Server) -> None:
    def ask(key: str, forwarded: str) -> int:
        headers = {"x-api-key": key, "X-Forwarded-For": forwarded}
        return server.get("/status", headers=headers).status

    statuses = [ask(f"guess-number-{number:010}", ANN) for number in range(4)]
    assert statuses == [401, 401, 401, 429]
    assert ask("guess-number-again", f"{BOB}, {ANN}") == 429, "what comes first is anybody's word"
    assert ask("a-wrong-key-0123456789", BOB) == 401
    url = f"ws://{server.address}/transcribe?sendBack=true"
    with pytest.raises(InvalidStatus, match="429"):
        headers = {"x-api-key": "one-more-guess-0123", "X-Forwarded-For": ANN}
        async with connect(url, additional_headers=headers):
            pass
    async with connect(url, additional_headers={"x-api-key": KEY, "X-Forwarded-For": BOB}):
        pass
