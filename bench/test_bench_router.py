"""The router: what a decision costs, and a request through it beside plain Sanic and nginx.

All servers run at once, each in a process of its own and on the core of the one that asks them in
turns over a connection each, so that what else the machine does weighs on all of them. Where there
is no nginx, it is left out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles

import msgspec
import pytest

from router.decision import Decider, DecisionSettings, RequestHead
from tests.support.nginx import in_front, nginx
from tests.support.server import free_port

ALLOWED_P99_US = 20.0
ALLOWED_MORE = 0.10
"""Of the server's CPU for a request, routed over plain."""
ROUNDS = 80
NOTE = msgspec.json.encode({"lines": [f"line {number} of a note" for number in range(40)]})
REQUESTS = {
    "a handler that answers at once": (
        b"GET /query HTTP/1.1\r\nHost: db.do\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
    ),
    "one that reads and makes 1 KiB of JSON": (
        b"POST /api/notes/17?q=line&page=2 HTTP/1.1\r\nHost: db.example.org:8080\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
        b"Accept: application/json\r\nAccept-Language: en-US,en;q=0.5\r\n"
        b"Accept-Encoding: gzip, deflate\r\nAuthorization: Bearer 0123456789abcdef\r\n"
        b"Content-Type: application/json\r\nOrigin: https://example.org\r\n"
        b"Referer: https://example.org/notes\r\nCookie: session=abcdef; theme=dark\r\n"
        b"Connection: keep-alive\r\nContent-Length: %d\r\n\r\n%b" % (len(NOTE), NOTE)
    ),
}
ENDS = (b"\r\n\r\nok", b"]}")


class Shelf:
    """A namespace that holds everything."""

    def find(self, service: str) -> str:
        return service


HEADS = (
    RequestHead("GET", "/query", ["db.do"]),
    RequestHead("GET", "/api/auth/login?next=/x", ["api.do:8080"]),
    RequestHead("GET", "/a/b/../c/%2e%2e/d", ["Queue.Example.ORG."]),
    RequestHead("GET", "/x", ["\u5f61.io"]),
    RequestHead("GET", "/api/mcp/tools", ["[::1]:80"]),
)


def test_decisions(figure: Callable[[str], None], in_full: bool) -> None:
    decider = Decider({"production": Shelf()}, DecisionSettings())
    taken_us = []
    for number in range(200_000 if in_full else 2000):
        head = HEADS[number % len(HEADS)]
        began_ns = time.perf_counter_ns()
        decider.decide(head)
        taken_us.append((time.perf_counter_ns() - began_ns) / 1000)
    p99_us = quantiles(taken_us, n=100)[98]
    figure(f"router: a decision takes {median(taken_us):.1f} µs, p99 {p99_us:.1f} µs")
    if in_full:
        assert p99_us < ALLOWED_P99_US


class Side:
    """One way to the handlers: its processes and a connection to it."""

    def __init__(self, port: int, *pids: int) -> None:
        self.pids = pids
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wall_us: list[float] = []
        self.cpu_us: list[float] = []

    def measure(self, request: bytes, count: int) -> None:
        """Ask one after the other; adds what one request took and cost."""
        before_ns, began_s = self._cpu_ns(), time.perf_counter()
        for _ in range(count):
            self.connection.sendall(request)
            answer = self.connection.recv(65536)
            while not answer.endswith(ENDS):
                answer += self.connection.recv(65536)
        self.wall_us.append((time.perf_counter() - began_s) / count * 1e6)
        self.cpu_us.append((self._cpu_ns() - before_ns) / count / 1000)

    def _cpu_ns(self) -> int:
        """CPU time of the processes' first threads so far."""
        total = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/task/{pid}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total


@contextlib.contextmanager
def server(kind: str) -> Iterator[tuple[int, int]]:
    """A server's port and process id."""
    port = free_port()
    command = [sys.executable, "-m", "bench.router_server", kind, str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 30
        while True:
            with contextlib.suppress(ConnectionError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            assert time.monotonic() < deadline_s and process.poll() is None
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Everything started within shares one core: who wakes whom costs the same on each side."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.timeout(180)
def test_a_request_through_the_router_beside_plain_sanic_and_nginx(
    figure: Callable[[str], None], in_full: bool, tmp_path: Path
) -> None:
    count, rounds = (200, ROUNDS) if in_full else (20, 2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(on_one_core())
        port, pid = stack.enter_context(server("plain"))
        sides = {"plain Sanic": Side(port, pid)}
        routed = stack.enter_context(server("routed"))
        sides["router"] = Side(*routed)
        if nginx() is not None:
            front = free_port()
            proxy = stack.enter_context(in_front({front: port}, tmp_path))
            sides["nginx before Sanic"] = Side(front, proxy, pid)
        for name, request in REQUESTS.items():
            for side in sides.values():
                side.measure(request, count)
                side.wall_us.clear()
                side.cpu_us.clear()
            for _ in range(rounds):
                for side in sides.values():
                    side.measure(request, count)
            plain, through, *others = sides.values()
            more = median(through.cpu_us) / median(plain.cpu_us) - 1
            told = ", ".join(
                f"{kind} {median(side.cpu_us):.1f} µs of CPU in {median(side.wall_us):.0f} µs"
                for kind, side in sides.items()
            )
            figure(f"router: {name}: {told} (router {more:+.1%} on plain Sanic)")
            if in_full:
                assert more < ALLOWED_MORE
                for other in others:
                    assert median(through.cpu_us) < median(other.cpu_us)
                    assert median(through.wall_us) < median(other.wall_us)
        for side in sides.values():
            side.connection.close()
