"""A real ``edgescribe serve`` in processes of its own, for tests of everything outside a worker.

``running`` gives a ready server and sees to it that nothing of it is left behind::

    with running("--workers", "2") as server:
        assert server.get("/health").body == b"OK"
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
HOST = "127.0.0.1"
READY_WITHIN_S = 30.0
PORTS = 700
"""That each process of the tests may use."""
_FIRST_PORT = 10_000 + PORTS * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw7")[2:]) % 8)
_ports = itertools.count(random.randrange(PORTS))
STOP_WITHIN_S = 25.0
BEHIND = "EDGESCRIBE_TESTS_BEHIND"
"""Set, tests that only use the public door run against a cluster behind a balancer."""
COMMAND = (sys.executable, "-m", "edge")


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on, nor is about to.

    Systems give none of these to clients that connect; tests in other processes have others.
    """
    for _ in range(PORTS):
        with socket.socket() as probe, suppress(OSError):
            port = _FIRST_PORT + next(_ports) % PORTS
            probe.bind((HOST, port))
            return port
    raise AssertionError(f"no port from {_FIRST_PORT} on is free")


def clean_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without any setting of ours, then ``changes``."""
    kept = ("HOME", "LANG", "PATH", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environment, "PYTHONPATH": str(REPOSITORY), **(changes or {})}


def edgescribe(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed and its status."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=clean_environment(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def wait_until(condition: Callable[[], bool], what: str, within_s: float = 10.0) -> None:
    """Return as soon as ``condition`` holds; fail naming ``what`` when it does not in time."""
    until_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until_s:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


@contextmanager
def _interruptible() -> Iterator[None]:
    """What starts here is not deaf to SIGINT, though tests in several processes run so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Server:
    """A server started by ``starting`` or ``running``."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        host: str = HOST,
        port: int = 0,
        prefix: Sequence[str] = (),
    ) -> None:
        """``prefix`` is a command that runs the rest of its arguments, somewhere else perhaps."""
        self.host = host
        self.port = port or free_port()
        self.folder = folder
        self.data_dir = folder / "data"
        self.temporary = folder / "tmp"
        """Its TMPDIR; holds nothing called edgescribe when it has cleaned up."""
        self.temporary.mkdir()
        self._output = folder / "stdout"
        self._log = folder / "stderr"
        command = [*prefix, *COMMAND, "serve", "--host", host, "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), *arguments]
        with (
            self._output.open("wb") as output,
            self._log.open("wb") as log,
            _interruptible(),
        ):
            self.process = subprocess.Popen(
                command,
                env=clean_environment(
                    {"EDGESCRIBE_INSECURE": "true", **environment, "TMPDIR": str(self.temporary)}
                ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def transcribe_url(self) -> str:
        return f"ws://{self.address}/transcribe?sendBack=true"

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._output.read_text()

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text()

    def get(
        self,
        target: str,
        method: str = "GET",
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5,
    ) -> Answer:
        """One HTTP request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def exchange(self, sent: bytes) -> bytes:
        """Everything that comes back for raw bytes until the server closes.

        It does not read on when it refuses a request: its close is a reset then.
        """
        received = b""
        with (
            socket.create_connection((self.host, self.port), timeout=5) as connection,
            suppress(ConnectionResetError, BrokenPipeError),
        ):
            with suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(sent)
            while chunk := connection.recv(65536):
                received += chunk
        return received

    def wait_ready(self) -> None:
        """Return when it takes work; fail with its log when it ends instead."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"status {self.process.returncode}:\n{self.output}{self.log}")
            try:
                return self.get("/ready").status == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(ready, f"ready\n{self.log}", READY_WITHIN_S)

    def group(self) -> list[int]:
        """Living processes of the server."""
        living = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.process.pid and state != "Z":
                living.append(int(stat.parent.name))
        return living

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return self.processes_named("Sanic-Server")

    def kill_worker(self, pid: int) -> None:
        """kill -9; a worker that has gone already is fine."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def processes_named(self, prefix: str) -> list[int]:
        """Process ids of the processes that Sanic started under a name."""
        wanted = b"SANIC_WORKER_NAME=" + prefix.encode()
        return [pid for pid in self.group() if wanted in _environ(pid)]

    def send_signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Signal the main process, or all of them as a terminal does."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def wait(self, within_s: float = STOP_WITHIN_S) -> int:
        """The exit status, once the main process and all others have ended."""
        status = self.process.wait(within_s)
        wait_until(lambda: not self.group(), "all its processes have ended", 5.0)
        return status

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.wait()

    def kill(self) -> None:
        """End whatever is left of it."""
        for pid in self.group():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


QUIET_RECOGNIZER = {"ENABLE_DUMMY_PROVIDER": "true", "PROVIDERS_PRIORITY": "dummy"}
"""Environment for tests that need no transcripts."""


@contextmanager
def starting(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that has just been started; killed at the end of the block if it still runs."""
    changes = QUIET_RECOGNIZER if environment is None else environment
    with tempfile.TemporaryDirectory(prefix="edgescribe-test-") as folder:
        server = Server(arguments, changes, Path(folder))
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def running(
    *arguments: str, environment: Mapping[str, str] | None = None, ready: bool = True
) -> Iterator[Server]:
    """A server that is ready unless told otherwise; it must stop cleanly at the block's end."""
    if BEHIND in os.environ:
        from tests.nodes.support.behind import behind

        with behind(QUIET_RECOGNIZER if environment is None else environment) as front:
            yield front
        return
    with starting(*arguments, environment=environment) as server:
        if ready:
            server.wait_ready()
        yield server
        if server.process.poll() is None:
            status = server.stop()
            assert status == 0, f"it ended with status {status}:\n{server.log}"
