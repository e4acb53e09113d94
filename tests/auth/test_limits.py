"""How much a key may use, how often one may be wrong, and how keys come and go while it runs."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge.auth.exposure import check_exposure, is_own_machine
from edge.auth.settings import AuthSettings
from edge.errors import SettingError
from tests.support.server import Server, edgescribe, running, wait_until

SECRET = "a secret of some forty characters, no less"
PAGE = "https://pages.example"
DUMMY = ("--set", "enable_dummy_provider=true", "--set", "providers_priority=dummy")


def key(data_dir: Path, name: str, *options: str) -> str:
    done = edgescribe("keys", "add", name, "--data-dir", str(data_dir), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Gateway:
    """A gateway with keys of its own."""

    def __init__(self, server: Server, keys: dict[str, str], keys_dir: Path) -> None:
        self.server, self.keys, self.keys_dir = server, keys, keys_dir

    def ask(
        self, shown: str | None, path: str = "/v1/sessions", method: str = "GET", **more: str
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=10)
        headers = {"x-api-key": shown} if shown else {}
        connection.request(method, path, headers={**headers, **more})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def until_logged(self, text: str) -> None:
        """Somebody has to ask for the file to be looked at."""
        wait_until(
            lambda: self.ask(self.keys["plain"]).status == 200 and text in self.server.log, text
        )

    def speak(self, shown: str, session: str) -> Any:
        url = f"ws://{self.server.address}/listen?session={session}"
        return connect(url, additional_headers={"x-api-key": shown})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("keys")
    keys = {
        "plain": key(folder, "plain"),
        "one connection": key(folder, "one", "--connections", "1"),
        "one track": key(folder, "track", "--tracks", "1"),
        "slow": key(folder, "slow", "--requests-per-s", "2"),
        "short": key(folder, "short", "--audio-s-per-day", "1"),
    }
    environment = {
        "EDGESCRIBE_KEYS_FILE": str(folder / "keys.json"),
        "EDGESCRIBE_FAILED_LOGINS_PER_MINUTE": "5",
        "EDGESCRIBE_JWT_SECRET": SECRET,
        "EDGESCRIBE_ALLOWED_ORIGINS": PAGE,
    }
    with running("--workers", "1", *DUMMY, environment=environment) as server:
        yield Gateway(server, keys, folder)


async def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code, client.close_reason


async def test_a_key_has_as_many_connections_as_it_may(gateway: Gateway) -> None:
    shown = gateway.keys["one connection"]
    async with gateway.speak(shown, "c1"):
        with pytest.raises(InvalidStatus, match="429") as refused:
            async with gateway.speak(shown, "c2"):
                pass
        assert refused.value.response.headers["Retry-After"]
        async with gateway.speak(gateway.keys["plain"], "c3"):
            pass
    async with gateway.speak(shown, "c4"):
        pass


async def test_a_key_has_as_many_tracks_as_it_may(gateway: Gateway) -> None:
    shown = gateway.keys["one track"]
    async with gateway.speak(shown, "t1") as first:
        await first.send(bytes(3200))
        async with gateway.speak(shown, "t2") as second:
            assert await closed(second) == (4029, "This key may have 1 tracks open")
        async with gateway.speak(gateway.keys["plain"], "t3") as other:
            await other.send(bytes(3200))
            assert json.loads(await other.recv())["type"] == "Connected"


async def test_a_key_hears_no_more_when_its_audio_of_the_day_is_used_up(gateway: Gateway) -> None:
    shown = gateway.keys["short"]
    async with gateway.speak(shown, "a1") as client:
        for _ in range(15):
            await client.send(bytes(3200))
        code, reason = await closed(client)
        assert code == 4029 and "1 seconds of audio for today" in (reason or "")
    async with gateway.speak(shown, "a2") as client:
        assert (await closed(client))[0] == 4029


async def test_a_token_has_the_audio_that_it_names(gateway: Gateway) -> None:
    claims = {"exp": time.time() + 600, "max_audio_s": 1, "session": "a3"}
    async with gateway.speak(jwt.encode(claims, SECRET, "HS256"), "a3") as client:
        for _ in range(15):
            await client.send(bytes(3200))
        assert (await closed(client))[0] == 4029


def test_a_key_asks_as_often_as_it_may(gateway: Gateway) -> None:
    shown = gateway.keys["slow"]
    statuses = [gateway.ask(shown).status for _ in range(8)]
    assert statuses[0] == 200 and 429 in statuses
    assert gateway.ask(gateway.keys["plain"]).status == 200


def test_keys_come_and_go_without_a_restart(gateway: Gateway) -> None:
    path = str(gateway.keys_dir)
    new = key(gateway.keys_dir, "new", "--scopes", "read")
    gateway.until_logged("keys were read again")
    assert gateway.ask(new).status == 200
    listed = edgescribe("keys", "list", "--data-dir", path).stdout
    assert new not in listed
    id = next(line.split()[0] for line in listed.splitlines() if " new " in line)
    assert edgescribe("keys", "remove", id, "--data-dir", path).returncode == 0
    wait_until(lambda: gateway.ask(new).status == 401, "the key is gone")
    assert (gateway.keys_dir / "keys.json").stat().st_mode & 0o777 == 0o600


def test_a_file_of_keys_that_is_damaged_changes_nothing(gateway: Gateway) -> None:
    path = gateway.keys_dir / "keys.json"
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    try:
        gateway.until_logged("the old ones stay")
        assert gateway.ask(gateway.keys["plain"]).status == 200
    finally:
        path.write_bytes(kept)


def test_pages_of_allowed_origins_may_read_and_connect(gateway: Gateway) -> None:
    shown = gateway.keys["plain"]
    answer = gateway.ask(shown, Origin=PAGE)
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (
        "Access-Control-Allow-Origin" not in gateway.ask(shown, Origin="https://x.example").headers
    )
    preflight = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
    answer = gateway.ask(None, method="OPTIONS", **preflight)
    assert answer.status == 204 and "DELETE" in answer.headers["Access-Control-Allow-Methods"]


async def test_pages_of_other_origins_may_not_connect(gateway: Gateway) -> None:
    url = f"ws://{gateway.server.address}/listen?session=o1"
    headers = {"x-api-key": gateway.keys["plain"]}
    for origin in (PAGE, f"http://{gateway.server.address}"):
        async with connect(url, additional_headers=headers, origin=origin):  # type: ignore[arg-type]
            pass
    with pytest.raises(InvalidStatus, match="403"):
        async with connect(url, additional_headers=headers, origin="https://x.example"):  # type: ignore[arg-type]
            pass


def test_who_is_wrong_too_often_waits_and_the_others_do_not(gateway: Gateway) -> None:
    """Runs last: this machine's address is blocked for a minute."""
    assert gateway.ask(gateway.keys["plain"]).status == 200
    statuses = [gateway.ask(f"guess-number-{number:010}").status for number in range(8)]
    assert set(statuses) <= {401, 429} and statuses[-1] == 429
    assert gateway.ask(gateway.keys["plain"]).status == 200
    metrics = gateway.ask(gateway.keys["plain"], "/metrics")
    assert metrics.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gateway.example"])
def test_other_machines_are_not_served_without_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="keys add"):
        check_exposure(host, AuthSettings(), tmp_path)
    check_exposure(host, AuthSettings(insecure=True), tmp_path)
    check_exposure(host, AuthSettings(api_keys=("some-key-0123456789",)), tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_ones_own_machine_is(host: str, tmp_path: Path) -> None:
    assert is_own_machine(host)
    check_exposure(host, AuthSettings(), tmp_path)


def test_serve_says_how_to_go_on(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    done = edgescribe("serve", "--host", "0.0.0.0", "--port", port, cwd=tmp_path)
    assert done.returncode == 2 and "edgescribe keys add" in done.stderr
