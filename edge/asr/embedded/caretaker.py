"""Keeps the inference process alive: a managed process of the launcher runs ``run_caretaker``.

Comes in: settings and the socket's path. Goes out: nothing; workers find the process at the socket.
A process of its own starts the inference process because it must outlive any worker, and with
``subprocess``, because managed processes are daemonic and may have no ``multiprocessing`` children.

The caretaker listens at the socket and hands it to each inference process it starts: workers that
connect while there is none wait for the next. It can put the first start off until a worker comes.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import msgspec

from edge import logs
from edge.asr.embedded.messages import check_socket_path
from edge.asr.embedded.process import Ties, run_inference
from edge.asr.embedded.settings import EmbeddedSettings
from edge.logs import get_logger

LogLevel = Literal["debug", "info", "warning", "error"]

FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 3.0
HEALTHY_S: Final = 30.0
"""A process that lived this long starts the backoff anew."""
LOOK_S: Final = 0.1
"""How often the caretaker looks at its child, its parent and its signals."""
START_S: Final = 30.0
"""A process that has just started may be silent for so long at least: it imports libraries."""

_log: Final = get_logger("edge.asr.embedded")

_BOOT: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge.asr.embedded.caretaker import inference_main; inference_main(*sys.argv[2:])"
)


class Care(msgspec.Struct, frozen=True, kw_only=True):
    """How the inference process is looked after."""

    at_once: bool = True
    """Start it now, or when the first worker asks for it."""
    hang_deadline_s: float = 15.0
    """One that shows no sign of life for so long is killed and replaced."""
    farewell_s: float = 20.0
    """How long, after the end was asked for, it serves workers that stay connected."""


def run_caretaker(
    settings: EmbeddedSettings,
    socket_path: str,
    log_level: LogLevel,
    log_format: str,
    care: Care | None = None,
) -> None:
    """Run the inference process, and another when it dies or hangs, until SIGINT or SIGTERM.

    It is the body of a process: it takes over the signals and configures the logs.

    At the signal, or when the parent process has gone, the inference process is asked to end: it
    serves the workers that are still connected (a drain needs their last finals) and ends as soon
    as they have left, at once when there are none. Later signals change nothing. A caretaker that
    is killed takes the inference process with it, also one that hangs.
    Raises ``SettingError`` when the socket's path is too long.
    """
    path = Path(socket_path)
    check_socket_path(path)
    logs.configure(log_level, log_format)
    care = care or Care()
    signalled = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    parent = os.getppid()

    def ending() -> bool:
        return signalled or os.getppid() != parent

    with _listening(path) as listener:
        while not care.at_once and not ending():
            if select.select([listener], [], [], LOOK_S)[0]:
                break
        arguments = [msgspec.json.encode(settings).decode(), log_level, log_format]
        _keep_running(arguments, listener, care, ending)


def _keep_running(
    arguments: list[str], listener: socket.socket, care: Care, ending: Callable[[], bool]
) -> None:
    backoff_s = FIRST_BACKOFF_S
    while not ending():
        began_s = time.monotonic()
        child = Child(arguments, listener, care)
        hung = False
        while child.is_running() and not ending() and not hung:
            time.sleep(LOOK_S)
            hung = child.hangs()
        if ending():
            listener.close()
            child.end()
            return
        if hung:
            _log.error("the inference process hangs and is killed", deadline_s=care.hang_deadline_s)
        status = child.kill()
        if time.monotonic() - began_s > HEALTHY_S:
            backoff_s = FIRST_BACKOFF_S
        _log.error(
            "the inference process ended, another is started",
            status=status,
            backoff_s=backoff_s,
        )
        time.sleep(backoff_s * random.uniform(0.5, 1.0))
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


class Child:
    """A running inference process, tied to this one by a pipe each way."""

    def __init__(self, arguments: list[str], listener: socket.socket, care: Care) -> None:
        self._care = care
        self._beats, beats = os.pipe()
        os.set_blocking(self._beats, False)
        ties = Ties(
            caretaker=os.getpid(),
            listener=listener.fileno(),
            beats=beats,
            farewell_s=care.farewell_s,
        )
        built = [msgspec.json.encode(value).decode() for value in (sys.path, ties)]
        # A session of its own keeps a terminal's Ctrl-C away from it; its stdin ties it to us.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, *built, *arguments],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(ties.listener, ties.beats),
        )
        os.close(beats)
        self._looked_s = time.monotonic()
        self._silent_s = min(0.0, care.hang_deadline_s - START_S)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def hangs(self) -> bool:
        """Whether it has been silent for too long; call it often.

        Time in which this process itself stood still is not held against the other.
        """
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._looked_s, 5 * LOOK_S)
        self._looked_s = now_s
        with contextlib.suppress(BlockingIOError):
            if os.read(self._beats, 4096):
                self._silent_s = 0.0
        return self._silent_s > self._care.hang_deadline_s

    def end(self) -> None:
        """Let it end by itself within its farewell, then kill it; it is reaped either way."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        until_s = time.monotonic() + self._care.farewell_s + 1
        while self.is_running() and not self.hangs() and time.monotonic() < until_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_S)
        self.kill()

    def kill(self) -> int:
        """End it now; its exit status."""
        self._process.kill()
        status = self._process.wait()
        os.close(self._beats)
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket for this user only at ``path``, which is gone afterwards."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen()
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def inference_main(ties: str, settings: str, log_level: LogLevel, log_format: str) -> None:
    """Body of the inference process; the arguments are those of its command line."""
    logs.configure(log_level, log_format)
    run_inference(
        msgspec.json.decode(settings, type=EmbeddedSettings), msgspec.json.decode(ties, type=Ties)
    )
