"""Keeps the inference process alive: a managed process of the launcher runs ``run_caretaker``.

Comes in: settings and the socket's path. Goes out: nothing; workers find the process at the socket.
A process of its own starts the inference process because it must outlive any worker, and with
``subprocess``, because managed processes are daemonic and may have no ``multiprocessing`` children.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import msgspec

from edge import logs
from edge.asr.embedded.messages import check_socket_path
from edge.asr.embedded.process import FAREWELL_S, run_inference
from edge.asr.embedded.settings import EmbeddedSettings
from edge.logs import get_logger

LogLevel = Literal["debug", "info", "warning", "error"]

FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 3.0
HEALTHY_S: Final = 30.0
"""A process that lived this long starts the backoff anew."""
LOOK_S: Final = 0.1
"""How often the caretaker looks at its child, its parent and its signals."""

_log: Final = get_logger("edge.asr.embedded")

_BOOT: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge.asr.embedded.caretaker import inference_main; inference_main(*sys.argv[2:])"
)


def run_caretaker(
    settings: EmbeddedSettings, socket_path: str, log_level: LogLevel, log_format: str
) -> None:
    """Run the inference process, and another when it dies, until SIGINT or SIGTERM.

    It is the body of a process: it takes over the signals and configures the logs.

    At the signal, or when the parent process has gone, the inference process is asked to end: it
    serves the workers that are still connected (a drain needs their last finals) and ends as soon
    as they have left, at once when there are none. Later signals change nothing. A caretaker that
    is killed takes the inference process with it, because that one reads the end of its pipe.
    Raises ``SettingError`` when the socket's path is too long.
    """
    check_socket_path(Path(socket_path))
    logs.configure(log_level, log_format)
    command = _command(settings, socket_path, log_level, log_format)
    signalled = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    parent = os.getppid()

    def ending() -> bool:
        return signalled or os.getppid() != parent

    backoff_s = FIRST_BACKOFF_S
    while not ending():
        began_s = time.monotonic()
        child = _start(command)
        while child.poll() is None and not ending():
            time.sleep(LOOK_S)
        _end(child)
        if ending():
            return
        if time.monotonic() - began_s > HEALTHY_S:
            backoff_s = FIRST_BACKOFF_S
        _log.error(
            "the inference process ended, another is started",
            status=child.returncode,
            backoff_s=backoff_s,
        )
        time.sleep(backoff_s * random.uniform(0.5, 1.0))
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


def _command(settings: EmbeddedSettings, *arguments: str) -> list[str]:
    """Starts Python with this process's module path, wherever the code lies."""
    built = [msgspec.json.encode(value).decode() for value in (sys.path, settings)]
    return [sys.executable, "-c", _BOOT, *built, *arguments]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """A session of its own keeps a terminal's Ctrl-C away from it; its pipe ties it to us."""
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Let ``child`` end by itself within its farewell, then kill it; it is reaped either way."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(FAREWELL_S + 1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def inference_main(settings: str, socket_path: str, log_level: LogLevel, log_format: str) -> None:
    """Body of the inference process; the arguments are those of its command line."""
    logs.configure(log_level, log_format)
    run_inference(msgspec.json.decode(settings, type=EmbeddedSettings), Path(socket_path))
