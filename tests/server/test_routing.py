"""The gateway behind the router: one service among others, and as ever where it is off."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

from tests.support.server import QUIET_RECOGNIZER, edgescribe, running, wait_until

FILE = """
environment = "development"
expose_errors = true
admin_host = "localhost"
admin_prefix = "/admin"

[table]
zones = ["localhost"]
allow_loopback = true
gateway_hosts = ["127.0.0.1"]
services = ["gateway", "echo", "later"]

[services.development.echo]
source = "examples.echo:app"
"""
KEY = "open sesame"


def ask(
    port: int, host: str, path: str = "/", method: str = "GET", body: bytes | None = None
) -> tuple[int, bytes]:
    headers = {"Host": host, "Authorization": f"Bearer {KEY}"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def socket_of(port: int, host: str, path: str) -> ClientConnection:
    """A WebSocket to a host that no resolver needs to know."""
    sock = socket.create_connection(("127.0.0.1", port))
    return connect(f"ws://{host}:{port}{path}", sock=sock, proxy=None)


def test_the_gateway_is_one_service_among_others(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text(FILE, encoding="utf-8")
    environment = {
        **QUIET_RECOGNIZER,
        "EDGESCRIBE_ROUTER_FILE": str(file),
        "EDGESCRIBE_ADMIN_KEY": KEY,
    }
    with running("--workers", "2", environment=environment) as server:
        port = server.port
        for host in ("gateway.localhost", "localhost", "api.localhost", "127.0.0.1"):
            assert ask(port, host, "/health")[0] == 200
        assert ask(port, "echo.localhost", "/", "POST", b"hello") == (200, b"hello")
        status, told = ask(port, "other.example", "/health")
        assert status == 404 and json.loads(told)["error"] == "Service not found"
        with socket_of(port, "gateway.localhost", "/listen") as ws:
            assert ws.response is not None and ws.response.status_code == 101
        with socket_of(port, "echo.localhost", "/") as ws:
            ws.send("hello")
            assert ws.recv() == "hello"

        assert b"not deployed" in ask(port, "later.localhost")[1]
        entry = json.dumps({"source": "examples.echo:app"}).encode()
        path = "/admin/services/development/later"
        assert ask(port, "127.0.0.1", path, "PUT", entry)[0] != 201
        assert ask(port, "localhost", path, "PUT", entry)[0] == 201
        answers: list[bool] = []

        def everywhere() -> bool:
            answers.append(ask(port, "later.localhost", "/", "POST", b"x") == (200, b"x"))
            return len(answers) > 20 and all(answers[-20:])

        def services(*words: str) -> str:
            url = ("--url", f"http://localhost:{port}", "--prefix", "/admin")
            url += ("--environment", "development")
            done = edgescribe("services", *words, *url, environment=environment)
            assert done.returncode == (0 if "refused" not in words else 1), done.stderr
            return done.stdout + done.stderr

        listed = services("list")
        assert listed == "development\tlater\texamples.echo:app\n"
        assert "cannot be loaded" in services("replace", "refused", "no.such:app")
        assert "version" in services("replace", "gateway", "examples.echo:app", "--tag", "blue")
        assert services("list").splitlines()[0].endswith("\tblue")
        assert "version" in services("remove", "gateway")
        wait_until(
            lambda: all(ask(port, "gateway.localhost", "/health")[1] for _ in range(20)),
            "the gateway is back on both workers",
            5,
        )
        wait_until(everywhere, "both workers serve what was deployed", 5)

        def counted() -> bool:
            metrics = ask(port, "127.0.0.1", "/metrics")[1].decode()
            known = 'router_requests_total{env="development",outcome="ok",service="echo"}'
            return known in metrics and "router_overhead_seconds_count" in metrics

        wait_until(counted, "requests are counted", 5)


def test_without_settings_every_host_reaches_the_gateway() -> None:
    with running("--workers", "1") as server:
        for host in ("gateway.localhost", "other.example", "127.0.0.1"):
            assert ask(server.port, host, "/health")[0] == 200
        assert ask(server.port, "localhost", "/_deploy/services")[0] == 426
