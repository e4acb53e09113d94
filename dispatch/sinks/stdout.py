"""``stdout``: one line of JSON a message on a file descriptor, each written out at once."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Sequence

from dispatch.messages import Envelope
from dispatch.sinks.lines import LineSink

PIECE_BYTES = 4096
"""What a pipe that is ready takes without waiting (``PIPE_BUF``, pipe(7))."""


class StdoutSink(LineSink):
    """A reader that stops reading is waited for; ``gone`` is set when it has ended.

    A line that was begun is always ended, so that what is read stays one message a line.
    """

    def __init__(self, descriptor: int = 1, deadline_s: float = 10.0) -> None:
        super().__init__(deadline_s)
        self._descriptor = descriptor
        self._rest = b""
        self._is_broken = False
        self.gone = asyncio.Event()
        """Nobody reads any more, and nobody ever will."""

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        try:
            return await super().send(envelopes)
        finally:
            if self._is_broken:
                self.gone.set()

    def write(self, lines: Sequence[bytes]) -> int:
        until_s = time.monotonic() + self._deadline_s / 2
        data = memoryview(self._rest + b"".join(lines))
        ends = len(self._rest)
        sent = self._push(data, until_s)
        done = 0
        for line in lines:
            if ends + len(line) > sent:
                break
            ends += len(line)
            done += 1
        self._rest = b""
        if sent < ends:
            self._rest = bytes(data[sent:ends])
        elif done < len(lines) and sent > ends:
            self._rest = bytes(data[sent : ends + len(lines[done])])
        if done < len(lines) and not done:
            raise BlockingIOError(0, "nobody reads standard output")
        return done

    def _push(self, data: memoryview, until_s: float) -> int:
        """How many bytes went out; ``OSError`` only if none did."""
        sent = 0
        while sent < len(data):
            wait_s = max(until_s - time.monotonic(), 0.0)
            if not select.select([], [self._descriptor], [], wait_s)[1]:
                break
            try:
                sent += os.write(self._descriptor, data[sent : sent + PIECE_BYTES])
            except BrokenPipeError:
                self._is_broken = True
                if not sent:
                    raise
                break
        return sent
