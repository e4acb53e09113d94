"""A gateway ends when it is told to, at any time, completely, and with a goodbye to its clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.server import HOST, STOP_WITHIN_S, Server, running, starting, wait_until

STOPS = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
@pytest.mark.parametrize("group", [False, True], ids=["main", "group"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_stops_everything(number: signal.Signals, group: bool, times: int) -> None:
    """Also when it is repeated, and when a terminal sends it to all processes."""
    with running("--workers", "2") as server:
        for _ in range(times):
            if server.group():
                server.send_signal(number, group=group)
                time.sleep(0.05)
        assert server.wait() == 0
        assert "Traceback" not in server.log
        assert not list(server.temporary.glob("edgescribe-*"))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, server.port), timeout=5)


def holds_signals(server: Server) -> bool:
    """Whether the main process has come as far as to keep a stop for later (proc(5): SigBlk)."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    held = next(line.split()[1] for line in lines if line.startswith("SigBlk:"))
    return bool(int(held, 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.4, 0.6, 0.9, 1.3])
@pytest.mark.parametrize("group", [False, True], ids=["main", "group"])
def test_a_signal_during_the_start_stops_everything(after_s: float, group: bool) -> None:
    """The moments are arbitrary: there is none at which a stop may be lost."""
    with starting("--workers", "2") as server:
        wait_until(lambda: holds_signals(server), "its first instructions")
        time.sleep(after_s)
        server.send_signal(signal.SIGTERM, group=group)
        assert server.wait() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
@pytest.mark.parametrize("group", [False, True], ids=["main", "group"])
def test_a_signal_before_the_first_instruction_leaves_nothing(
    number: signal.Signals, group: bool
) -> None:
    """Python has not come to our code yet: the signal ends it, as it ends any program.

    An interrupt while it imports ``site`` is a fatal error to Python, with status 1.
    """
    statuses = (0, -number, 130, 1) if number is signal.SIGINT else (0, -number)
    with starting("--workers", "2") as server:
        server.send_signal(number, group=group)
        assert server.wait() in statuses
        assert not list(server.temporary.glob("edgescribe-*"))


def test_signals_all_through_the_start_stop_everything() -> None:
    """One every 20 ms, from the first moment that it keeps them on."""
    with starting("--workers", "2") as server:
        wait_until(lambda: holds_signals(server), "its first instructions")
        until_s = time.monotonic() + STOP_WITHIN_S
        while server.process.poll() is None and time.monotonic() < until_s:
            server.send_signal(signal.SIGTERM, group=True)
            time.sleep(0.02)
        assert server.wait() == 0
        assert "Traceback" not in server.log


def test_no_process_outlives_a_killed_main_process() -> None:
    with running("--workers", "2") as server:
        server.process.kill()
        wait_until(lambda: not server.group(), "all processes have ended", 10)


def test_a_worker_that_hangs_is_killed_and_the_status_says_so() -> None:
    with running("--workers", "2", "--set", "drain_deadline_s=0.2") as server:
        os.kill(server.workers()[0], signal.SIGSTOP)
        server.process.terminate()
        assert server.wait() == 1
        assert "did not stop" in server.log


def test_the_process_beside_the_workers_is_started_again_when_it_dies() -> None:
    """Without it the embedded recognizer would be gone for good."""
    with running("--workers", "1") as server:
        (victim,) = server.processes_named("Sanic-Inference")
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: bool(set(server.processes_named("Sanic-Inference")) - {victim}),
            "another inference process",
        )


async def test_clients_are_told_goodbye_after_their_last_message() -> None:
    with running("--workers", "1") as server:
        client = await connect(server.transcribe_url)
        await client.recv()
        for number in range(500):
            await client.send(json.dumps({"event": "ping", "id": number}))
        pong: dict[str, object] = {}
        while pong.get("id") != 0:
            pong = json.loads(await client.recv())
        server.process.terminate()
        received = [0]
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                received.append(json.loads(await client.recv())["id"])
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
        assert received == list(range(len(received)))
        assert await asyncio.to_thread(server.wait) == 0


def test_idle_http_connections_do_not_hold_it_up() -> None:
    with running("--workers", "1") as server:
        silent = socket.create_connection((HOST, server.port))
        kept = http.client.HTTPConnection(HOST, server.port)
        kept.request("GET", "/health")
        kept.getresponse().read()
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 5
        silent.close()
        kept.close()
