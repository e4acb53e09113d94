"""A dispatcher's target in a process of its own, which a test may kill and start again.

``python -m tests.dispatch.support.target PORT FILE`` takes posts until it is killed. What it takes
is in the file, a line each, before it says so. ``Target`` is the other side.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import msgspec
from aiohttp import web

from dispatch.messages import DispatcherTranscriptionMessage, decode_message
from tests.support.server import REPOSITORY, clean_environment, free_port

ANSWER = b'{"success":true,"dispatched":1}'


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """One line of the file."""

    message_id: str
    message: DispatcherTranscriptionMessage

    @property
    def offset(self) -> int:
        return int(self.message_id.rpartition(":")[2])


_line = msgspec.json.Decoder(Taken)


class Target:
    """The process; ``start`` it again after ``kill``."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "taken.jsonl"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/dispatch"

    def start(self) -> None:
        command = [sys.executable, "-m", __name__, str(self._port), str(self._file)]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, env=clean_environment())

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def taken(self) -> list[Taken]:
        """All that it took so far, in order of arrival, redeliveries included."""
        if not self._file.exists():
            return []
        lines = self._file.read_bytes().split(b"\n")
        # What a kill cut off was not answered.
        return [_line.decode(line) for line in lines[:-1] if line.endswith(b"]")]


def serve(port: int, file: Path) -> None:
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        message = decode_message(await request.read())
        line = Taken(unquote(request.headers["Idempotency-Key"]), message)
        os.write(output, msgspec.json.encode(line) + b"\n")
        return web.Response(body=ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post("/dispatch", take)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
