"""Attackers' sockets, and what they may cost: a neighbour's waits and the worker's memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from _native import frames
from _native.frame_writer import encode_masked
from _native.frames import BINARY, CLOSE, TEXT, Decoder
from tests.hostile.neighbour import UPGRADE
from tests.support.server import HOST, REPOSITORY, Server, clean_environment, wait_until

PATIENCE_S = 20.0
MASK = b"\x37\xfa\x21\x3d"


class Effort(NamedTuple):
    """Sizes of the attacks and what a neighbour may feel."""

    rounds: int
    """Times that quiet and attack are measured, one after the other; the best of each counts."""
    seconds: float
    """Each measurement."""
    extra_ms: float
    """A neighbour's p99 may rise by this much, or to 1.25 times what it was."""
    idle_sockets: int
    flooders: int
    """Sockets that flood together."""
    events: int
    """Events of a flood a second."""
    tags: int
    slow_upgrades: int
    noise: int
    """Random requests and messages."""


LIGHT = Effort(1, 1.0, 60.0, 300, 20, 100_000, 2_000, 50, 100)
FULL = Effort(3, 6.0, 1.0, 2_000, 100, 100_000, 10_000, 500, 2_000)


class Waits(NamedTuple):
    """A neighbour's waits for a pong."""

    p50_ms: float
    p99_ms: float
    pings: int


def neighbour(server: Server, seconds: float) -> Waits:
    """Be a well-behaved client for so long."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.neighbour", str(server.port), str(seconds)],
        env=clean_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    assert done.returncode == 0, done.stderr
    p50, p99, pings = done.stdout.split()
    return Waits(float(p50), float(p99), int(pings))


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Crowd:
    """Opens attackers' sockets, and closes those that are still open in the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def connect(self, receive_buffer_bytes: int | None = None) -> socket.socket:
        """A TCP connection to the gateway."""
        connection = socket.socket()
        self._sockets.append(connection)
        if receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.settimeout(PATIENCE_S)
        connection.connect((HOST, self._port))
        return connection

    def join(self, query: str = "sendBack=true&info=false", **buffer: int) -> Peer:
        """A WebSocket to the gateway."""
        return Peer(self.connect(**buffer), query)

    def leave(self) -> None:
        """Close all sockets."""
        for connection in self._sockets:
            connection.close()
        self._sockets.clear()


class Peer:
    """A blocking client that does what it is told and checks nothing."""

    def __init__(self, connection: socket.socket, query: str) -> None:
        self.socket = connection
        self._decoder = Decoder(1 << 24, masked=False)
        self.messages: list[bytes] = []
        self.close_code: int | None = None
        self.socket.sendall(UPGRADE.replace(b"sendBack=true&info=false", query.encode()))
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = self.socket.recv(65536)
            assert received, "the gateway refused an upgrade"
            answer += received
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        self._take(answer.partition(b"\r\n\r\n")[2])

    def send(self, *messages: bytes) -> None:
        """Text messages in one write."""
        self.socket.sendall(b"".join(text(message) for message in messages))

    def send_binary(self, *messages: bytes) -> None:
        """Binary messages in one write."""
        self.socket.sendall(b"".join(encode_masked(BINARY, each, MASK) for each in messages))

    def until(self, condition: Callable[[], object]) -> None:
        """Read until the condition holds or the gateway has closed."""
        while not condition() and self.close_code is None:
            received = self.socket.recv(65536)
            if not received:
                self.close_code = 1006
                return
            self._take(received)

    def ping(self, number: int = 1) -> None:
        """A ping and its pong: everything sent before was taken."""
        pong = b'{"event":"pong","id":%d}' % number
        self.send(b'{"event":"ping","id":%d}' % number)
        self.until(lambda: pong in self.messages)
        assert self.close_code is None, self.close_code

    def leave(self) -> None:
        """Drop the TCP connection."""
        self.socket.close()

    def _take(self, data: bytes) -> None:
        for opcode, payload in self._decoder.decode(data):
            if opcode == CLOSE:
                self.close_code = frames.parse_close(payload)[0]
            elif opcode == TEXT:
                self.messages.append(payload)


def text(message: bytes) -> bytes:
    """A text frame as a client sends it."""
    return encode_masked(TEXT, message, MASK)


@contextmanager
def attacking(*steps: Callable[[], None]) -> Iterator[None]:
    """Call each step over and over in a thread of its own until the block ends."""
    over = threading.Event()

    def run(step: Callable[[], None]) -> None:
        with suppress(OSError):
            while not over.is_set():
                step()

    threads = [threading.Thread(target=run, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


@contextmanager
def flooding(server: Server, kind: str, count: int) -> Iterator[None]:
    """So many clients of ``tests.hostile.flooder`` until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.flooder", str(server.port), kind, str(count)],
        env=clean_environment(),
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as flooder:
        assert flooder.stdout is not None and flooder.stdin is not None
        try:
            assert flooder.stdout.readline() == b"flooding\n"
            yield
        finally:
            flooder.stdin.close()
            flooder.wait(30)


@contextmanager
def unharmed(server: Server, effort: Effort, *, grows_mb: float) -> Iterator[Callable[..., None]]:
    """Yield ``compare(*steps)``: a neighbour's waits without and with the attack's steps.

    ``during`` is a context in which the waits of the attack are measured.

    At the block's end the worker is the same process and has grown by at most ``grows_mb``.
    """
    (worker,) = server.workers()
    neighbour(server, 0.2)
    before_mb = rss_mb(worker)

    def compare(
        *steps: Callable[[], None],
        during: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        quiet: list[Waits] = []
        attacked: list[Waits] = []
        for _ in range(effort.rounds):
            quiet.append(neighbour(server, effort.seconds))
            with during(), attacking(*steps):
                attacked.append(neighbour(server, effort.seconds))
        calm_ms = min(waits.p99_ms for waits in quiet)
        hard_ms = min(waits.p99_ms for waits in attacked)
        print(
            f"neighbour p99 {calm_ms:.2f} ms quiet, {hard_ms:.2f} ms attacked,"
            f" {sum(waits.pings for waits in attacked)} pings"
        )
        assert hard_ms <= max(1.25 * calm_ms, calm_ms + effort.extra_ms)

    yield compare
    assert server.workers() == [worker]
    grown_mb = rss_mb(worker) - before_mb
    print(f"worker {before_mb:.0f} MB, {grown_mb:+.1f} MB")
    assert grown_mb <= grows_mb


def no_sessions(server: Server, within_s: float = 30.0) -> None:
    """Return when the gateway carries nothing any more."""
    wait_until(
        lambda: server.get("/status").body.startswith(b'{"detached":0,"active":0,"tracks":0'),
        "nothing is carried",
        within_s,
    )


def metric(server: Server, name: str) -> float:
    """The sum of a metric's samples."""
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


__all__ = [
    "FULL",
    "LIGHT",
    "Crowd",
    "Effort",
    "Peer",
    "attacking",
    "flooding",
    "metric",
    "neighbour",
    "no_sessions",
    "rss_mb",
    "text",
    "unharmed",
]
