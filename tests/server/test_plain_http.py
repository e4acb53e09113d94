"""Plain HTTP of a running gateway: what each path answers, and that bad requests cost nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from tests.support.server import Server, running, wait_until

NOT_A_WEBSOCKET = b"Upgrade Required: Expected WebSocket connection"
UPGRADE = (
    "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "2") as server:
        yield server


def status(server: Server) -> dict[str, int]:
    counts: dict[str, int] = json.loads(server.get("/status").body)
    return counts


def test_health_is_answered_on_exactly_its_path(server: Server) -> None:
    answer = server.get("/health")
    assert (answer.status, answer.body) == (200, b"OK")
    for target in ("/health?x", "/health?", "/health/", "/Health", "//health"):
        answer = server.get(target)
        assert (answer.status, answer.body) == (426, NOT_A_WEBSOCKET), target
        assert answer.headers["content-type"].startswith("text/plain")


def test_head_is_get_without_a_body(server: Server) -> None:
    answer = server.get("/health", method="HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "2")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_told_to_open_a_websocket(server: Server, method: str) -> None:
    answer = server.get("/health", method=method)
    assert (answer.status, answer.body) == (426, NOT_A_WEBSOCKET)


@pytest.mark.parametrize("target", ["/", "/transcribe", "/%zz", "/a/b/c", "/..", "//x", "/?q"])
def test_every_other_path_is_told_to_open_a_websocket(server: Server, target: str) -> None:
    assert server.get(target).status == 426


def test_ready_and_status_are_json_over_all_workers(server: Server) -> None:
    answer = server.get("/ready")
    assert (answer.status, json.loads(answer.body)) == (200, {"ready": True})
    assert answer.headers["content-type"] == "application/json"
    assert status(server) == {"detached": 0, "active": 0, "tracks": 0, "workers": 2, "draining": 0}


async def test_any_worker_counts_the_sessions_of_all(server: Server) -> None:
    clients = [await connect(server.transcribe_url) for _ in range(5)]
    wait_until(lambda: status(server)["active"] == 5, "5 active sessions")
    for _ in range(20):
        assert status(server)["active"] == 5
    for client in clients:
        await client.close()
    wait_until(lambda: status(server)["active"] == 0, "no active session")


async def test_metrics_are_prometheus_text_over_all_workers(server: Server) -> None:
    async with connect(server.transcribe_url):

        def sessions() -> float:
            return sum(
                sample.value
                for family in metrics(server)
                for sample in family.samples
                if sample.name == "otp_sessions_active"
            )

        wait_until(lambda: sessions() == 1, "otp_sessions_active is 1")
    names = {family.name for family in metrics(server)}
    assert {
        "otp_sessions_detached",
        "otp_participants_active",
        "otp_session_starts",
        "otp_client_audio_bytes",
        "otp_transcription_latency_seconds",
        "edgescribe_build_info",
        "edgescribe_event_loop_delay_seconds",
        "edgescribe_tasks",
        "edgescribe_client_connections",
    } <= names
    assert not any(
        "pid" in sample.labels for family in metrics(server) for sample in family.samples
    )


def metrics(server: Server) -> list[object]:
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return list(text_string_to_metric_families(answer.body.decode()))


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/elsewhere?sendBack=true", b"Bad URL"),
        ("/transcribe", b"No transcription output method specified"),
    ],
)
def test_a_refused_upgrade_is_a_bare_answer(server: Server, target: str, body: bytes) -> None:
    """Media servers expect no headers at all, and the socket cut."""
    received = server.exchange(UPGRADE.format(target=target).encode())
    assert received == b"HTTP/1.1 400 Bad Request\r\n\r\n" + body


def test_an_upgrade_to_something_else_is_plain_http(server: Server) -> None:
    request = (
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    )
    received = server.exchange(request)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nOK")


def test_a_wrong_handshake_says_what_is_wrong(server: Server) -> None:
    request = UPGRADE.format(target="/transcribe?sendBack=true").replace(
        "Version: 13", "Version: 8"
    )
    received = server.exchange(request.encode().replace(b"Upgrade\r\n", b"Upgrade, close\r\n", 1))
    assert received.startswith(b"HTTP/1.1 426 ")
    assert b"Sec-WebSocket-Version: 13" in received


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n",
    ],
    ids=["tls", "no-target", "target", "version", "length", "long-header", "long-body"],
)
def test_bad_requests_get_an_error_without_a_traceback(server: Server, sent: bytes) -> None:
    received = server.exchange(sent)
    assert received.startswith(b"HTTP/1.1 4"), received
    assert b"Traceback" not in received and b".py" not in received
    assert server.get("/health").status == 200
    assert "Traceback" not in server.log
