"""The router: what a decision costs, and a request through it beside plain Sanic.

Both servers run at once, each in a process of its own, and are asked in turns over one connection,
so that what else the machine does weighs on both.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles

import pytest

from router.decision import Decider, DecisionSettings, RequestHead

ALLOWED_P99_US = 20.0
ALLOWED_MORE_US = 25.0
"""Of the server's CPU for a request, routed over plain."""
ROUNDS = 30
REQUEST = b"GET /query HTTP/1.1\r\nHost: db.do\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


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


@contextlib.contextmanager
def server(kind: str) -> Iterator[tuple[int, socket.socket]]:
    """A server's process id and a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "bench.router_server", kind, str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 30
        while True:
            with contextlib.suppress(ConnectionError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                break
            assert time.monotonic() < deadline_s and process.poll() is None
            time.sleep(0.05)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            yield process.pid, connection
    finally:
        process.terminate()
        process.wait(30)


def ask(connection: socket.socket, count: int) -> float:
    """Microseconds per request, one after the other."""
    began_s = time.perf_counter()
    for _ in range(count):
        connection.sendall(REQUEST)
        assert connection.recv(4096).endswith(b"\r\n\r\nok")
    return (time.perf_counter() - began_s) / count * 1e6


def cpu_ns(pid: int) -> int:
    """CPU time of a process's first thread so far."""
    with open(f"/proc/{pid}/task/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


@pytest.mark.timeout(120)
def test_a_request_through_the_router_beside_plain_sanic(
    figure: Callable[[str], None], in_full: bool
) -> None:
    count = 1000 if in_full else 20
    wall: dict[str, list[float]] = {"plain": [], "routed": []}
    cpu: dict[str, list[float]] = {"plain": [], "routed": []}
    with server("plain") as plain, server("routed") as routed:
        sides = {"plain": plain, "routed": routed}
        for _, connection in sides.values():
            ask(connection, count)
        for _ in range(ROUNDS if in_full else 2):
            for kind, (pid, connection) in sides.items():
                before_ns = cpu_ns(pid)
                wall[kind].append(ask(connection, count))
                cpu[kind].append((cpu_ns(pid) - before_ns) / count / 1000)
    more_us = median(cpu["routed"]) - median(cpu["plain"])
    longer = median(wall["routed"]) / median(wall["plain"])
    figure(
        f"router: a request costs {median(cpu['routed']):.0f} µs of CPU, plain Sanic "
        f"{median(cpu['plain']):.0f} µs ({more_us:+.0f}); it takes {median(wall['routed']):.0f} "
        f"and {median(wall['plain']):.0f} µs ({longer - 1:+.0%})"
    )
    if in_full:
        assert more_us < ALLOWED_MORE_US
