"""What sinks that write lines have in common: whatever waits is written at once, in a thread."""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope, decode_message, encode_message

T = TypeVar("T")


def line_of(body: bytes) -> bytes:
    """A message's members and no others on one line; ``Refused`` for what is no message."""
    try:
        return encode_message(decode_message(body)) + b"\n"
    except msgspec.DecodeError as error:
        raise Refused("the message cannot be read", final=True) from error


class WritingThread:
    """Runs calls one after the other. A daemon: a disk that hangs does not keep a process alive."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises; it is done to its end even if nobody waits for it."""
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(answer: T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)  # type: ignore[arg-type]

        def do() -> None:
            answer, failure = None, None
            try:
                answer = work()
            except Exception as error:
                failure = error
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(settle, answer, failure)

        self._calls.put(do)
        return await future

    def end(self) -> None:
        """Let the thread end after the calls that wait."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class _Waiting(msgspec.Struct, eq=False):
    lines: list[bytes]
    written: asyncio.Future[int]


class LineSink(Transport):
    """Writes the lines of all sessions that wait together: one write, one sync."""

    def __init__(self, deadline_s: float = 10.0) -> None:
        self._deadline_s = deadline_s
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread: WritingThread | None = None

    @abstractmethod
    def write(self, lines: Sequence[bytes]) -> int:
        """In the thread: how many lines, from the first on, are written; ``OSError`` for none."""

    def release(self) -> None:
        """In the thread, last of all: let go of files."""
        return None

    async def open(self) -> None:
        self._thread = WritingThread()

    async def close(self) -> None:
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._writing is not None:
                    await self._writing
                await thread.call(self.release)
        except TimeoutError:
            return
        finally:
            thread.end()

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        lines = [line_of(envelopes[0].body)]
        for envelope in envelopes[1:]:
            try:
                lines.append(line_of(envelope.body))
            except Refused:
                break
        waiting = _Waiting(lines, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        try:
            async with asyncio.timeout(self._deadline_s):
                return await waiting.written
        except TimeoutError as error:
            raise Unreachable(f"not written within {self._deadline_s:g} s") from error
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def _write_all(self) -> None:
        try:
            while self._waiting and self._thread is not None:
                group, self._waiting = self._waiting, []
                lines = [line for waiting in group for line in waiting.lines]
                settle(group, *await self._try(self._thread, lines))
        finally:
            self._writing = None

    async def _try(
        self, thread: WritingThread, lines: list[bytes]
    ) -> tuple[int, DispatchError | None]:
        try:
            return await thread.call(lambda: self.write(lines)), None
        except OSError as error:
            return 0, Unreachable(f"cannot be written: {error.strerror or type(error).__name__}")


def settle(group: list[_Waiting], written: int, error: DispatchError | None) -> None:
    """Tell each session how many of its lines are among those written."""
    for waiting in group:
        count = min(written, len(waiting.lines))
        written -= count
        if waiting.written.done():
            continue
        if count:
            waiting.written.set_result(count)
        else:
            waiting.written.set_exception(error or Unreachable("written only in part"))
