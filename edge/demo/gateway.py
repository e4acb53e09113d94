"""A real ``edgescribe serve`` in processes of its own: start, wait, measure, stop."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType

from prometheus_client.parser import text_string_to_metric_families

from edge.errors import EdgescribeError

HOST = "127.0.0.1"
READY_WITHIN_S = 90.0
STOP_WITHIN_S = 25.0
_LOG_LINES = 8


class GatewayFailed(EdgescribeError):
    """The gateway did not start, or did not stop as it should."""

    def __init__(self, message: str, log: str) -> None:
        self.log = log
        """The last lines it wrote."""
        super().__init__(message)


class GatewayProcess:
    """A gateway started by ``running``."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        log: Path,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._process = process
        self._trust = trust
        self._log = log
        self.port = port
        self.exit_status: int | None = None
        """The status it ended with, once ``stop`` has returned."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def data_dir(self) -> Path:
        """Where it keeps what it writes."""
        return self._log.with_name("data")

    async def ready(self, on_wait: Callable[[float], None] = lambda waited_s: None) -> None:
        """Wait until it takes work; ``on_wait`` is told the seconds waited, every half second."""
        started_s = time.monotonic()
        told_s = 0.0
        while True:
            if self._process.poll() is not None:
                status = self._process.returncode
                raise self.failed(f"stopped with status {status}")
            if await asyncio.to_thread(self._get, "/ready") is not None:
                return
            waited_s = time.monotonic() - started_s
            if waited_s > READY_WITHIN_S:
                raise self.failed(f"was not ready within {READY_WITHIN_S:g} s")
            if waited_s - told_s >= 0.5:
                told_s = waited_s
                on_wait(waited_s)
            await asyncio.sleep(0.1)

    async def metrics(self) -> Counter[str]:
        """Each counter of ``/metrics``: the sum over its labels by its name, and each labelled
        value as ``name/value`` (``name/value/value`` for two labels)."""
        counters: Counter[str] = Counter()
        for family in text_string_to_metric_families(await self.metrics_text()):
            for sample in family.samples:
                if sample.name == f"{family.name}_total":
                    counters[sample.name] += round(sample.value)
                    if sample.labels:
                        labelled = "/".join((sample.name, *sample.labels.values()))
                        counters[labelled] += round(sample.value)
        return counters

    async def metrics_text(self) -> str:
        """The body of ``/metrics``."""
        text = await asyncio.to_thread(self._get, "/metrics")
        if text is None:
            raise self.failed("did not answer /metrics")
        return text

    def pids(self) -> list[int]:
        """The processes of the gateway, its own first; empty where there is no ``/proc``."""
        return process_tree(self.pid)

    def cpu_s(self) -> float | None:
        """CPU seconds its live processes have used, or None where there is no ``/proc``."""
        used = [cpu_s(pid) for pid in self.pids()]
        return sum(used) if used else None

    def failed(self, how: str) -> GatewayFailed:
        """An error about this gateway, with the end of its log."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        log = "\n".join(f"  | {line}" for line in lines[-_LOG_LINES:])
        return GatewayFailed(f"the gateway {how}", log or "  | (it wrote nothing)")

    async def stop(self) -> int:
        """Send SIGTERM, wait, return the exit status.

        Raises ``GatewayFailed`` when it had to be killed or left processes behind.
        """
        if self.exit_status is not None:
            return self.exit_status
        family = self.pids()
        self._process.terminate()
        try:
            self.exit_status = await asyncio.to_thread(self._process.wait, STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.failed(
                f"was still running {STOP_WITHIN_S:g} s after SIGTERM and was killed"
            ) from None
        left = [pid for pid in family if await self._outlives(pid)]
        if left:
            self.kill()
            raise self.failed(f"left processes behind: {left}")
        return self.exit_status

    def kill(self) -> None:
        """End all its processes at once; for failures only."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    async def _outlives(self, pid: int) -> bool:
        """Whether a process of ours still runs 2 s after its parent ended."""
        for _ in range(20):
            state, _parent, group, *_ = _stat_fields(pid) or ("Z", "", "")
            # A zombie has ended and only waits for init to notice.
            if state == "Z" or int(group) != self.pid:
                return False
            await asyncio.sleep(0.1)
        return True

    def _get(self, path: str) -> str | None:
        """Body of a 200, or None for anything else."""
        connection = (
            http.client.HTTPConnection(HOST, self.port, timeout=5)
            if self._trust is None
            else http.client.HTTPSConnection(HOST, self.port, timeout=5, context=self._trust)
        )
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body.decode() if response.status == 200 else None


@asynccontextmanager
async def running(
    *,
    workers: int,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    on_wait: Callable[[float], None] = lambda waited_s: None,
) -> AsyncIterator[GatewayProcess]:
    """Run a gateway on a free port for the length of the block, ready when the block begins.

    It is the code that runs here, it reads no settings file, and it keeps what it writes in a
    temporary folder. ``environment`` replaces the inherited one; ``trust`` goes with arguments that
    give it a certificate. When the block fails, or this process is interrupted or told to end, the
    gateway is stopped quietly; when the block ends well a bad stop is an error.
    """
    with (
        _ended_like_interrupted(),
        tempfile.TemporaryDirectory(prefix="edgescribe-", ignore_cleanup_errors=True) as folder,
    ):
        port = free_port()
        log = Path(folder, "gateway.log")
        command = [sys.executable, "-m", "edge.cli", "serve"]
        command += ["--host", HOST, "--port", str(port), "--workers", str(workers)]
        command += ["--data-dir", str(log.with_name("data")), "--config", os.devnull]
        command += ["--set", "tls_cert=", "--set", "tls_key=", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the demo alone; it stops the gateway itself.
                start_new_session=True,
                cwd=Path(__file__).parents[2],
                env=environment,
            )
        gateway = GatewayProcess(process, port, log, trust)
        try:
            await gateway.ready(on_wait)
            yield gateway
        except BaseException:
            try:
                await gateway.stop()
            except (GatewayFailed, asyncio.CancelledError, KeyboardInterrupt):
                gateway.kill()
            raise
        if status := await gateway.stop():
            raise gateway.failed(f"ended with status {status}")


@contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the running task as Ctrl-C does, so that no gateway is left behind.

    It cancels the task: an exception raised wherever the signal finds the interpreter could leave
    a lock of the standard library held, and this process waiting for it.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told = False

    def unwind(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        loop.call_soon_threadsafe(task.cancel)

    try:
        previous = signal.signal(signal.SIGTERM, unwind)
    except ValueError:  # not the main thread: whoever owns that one decides
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if told:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def process_tree(root: int) -> list[int]:
    """A process and its descendants, or nothing where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid = int(stat.parent.name)
        if fields := _stat_fields(pid):
            children.setdefault(int(fields[1]), []).append(pid)
    if not children:
        return []
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far; 0 when it is gone."""
    fields = _stat_fields(pid)
    if not fields:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat_fields(pid: int) -> list[str]:
    """Fields of ``/proc/<pid>/stat`` from the third on (proc(5)); none when it is gone.

    The second field may hold spaces and parentheses, so the last parenthesis ends it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()
    except OSError:
        return []
