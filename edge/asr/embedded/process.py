"""The inference process: one per machine, it turns segments of all workers into text.

Comes in: ``Decode`` requests over a Unix socket. Goes out: one ``Answer`` each. It holds no state
that a worker could miss: when it dies, its caretaker starts another and the workers ask again.

Life: it ends when standard input ends, which the caretaker holds open. From then on it takes no new
connection, serves those there are until they close, and gives up after a farewell. While it lives
and no decode takes for ever it says so, in a pipe that the caretaker reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final, cast

import msgspec

from edge.asr.embedded.messages import (
    Answer,
    Decode,
    Deframer,
    Ready,
    frame,
)
from edge.asr.embedded.settings import EmbeddedSettings
from edge.errors import EdgescribeError
from edge.logs import get_logger
from edge.parent import end_with_parent

BEAT_S: Final = 0.25
LONGEST_DECODE_S: Final = 30.0
"""A decode takes seconds at most: after so long its thread hangs, and the process with it."""

_log: Final = get_logger("edge.asr.embedded")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Decode)


class Ties(msgspec.Struct, frozen=True, kw_only=True):
    """What the inference process has of its caretaker, beside standard input."""

    caretaker: int
    """Its process id."""
    listener: int
    """Descriptor of the listening socket."""
    beats: int
    """Descriptor of the pipe that takes signs of life."""
    farewell_s: float
    """How long workers that stay connected are served after the end was asked for."""


class WorkerConnection(asyncio.Protocol):
    """One worker's requests and answers."""

    def __init__(self, server: InferenceServer) -> None:
        self._server = server
        self._deframer = Deframer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._server.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._deframer.feed(data):
                self._server.decode(self, _decoder.decode(body))
        except (ValueError, msgspec.MsgspecError) as error:
            _log.error("a worker sent what is no request, it is cut off", error=str(error))
            if self._transport is not None:
                self._transport.abort()

    def send(self, message: Ready | Answer) -> None:
        """Write ``message``; dropped when the worker has gone."""
        if self._transport is not None:
            self._transport.writelines(frame(_encoder.encode(message)))

    def cut(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()


class InferenceServer:
    """Accepts workers at once, loads the weights meanwhile, then decodes."""

    def __init__(
        self, settings: EmbeddedSettings, listener: socket.socket, farewell_s: float
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._farewell_s = farewell_s
        self._workers: set[WorkerConnection] = set()
        self._ready: Ready | None = None
        self._submit: Callable[[WorkerConnection, Decode], None] | None = None
        self._forget: Callable[[WorkerConnection], None] | None = None
        self._longest_s: Callable[[], float] = lambda: 0.0
        self._alone = asyncio.Event()
        self._alone.set()

    async def run(self, end_wanted: asyncio.Event) -> None:
        """Serve until ``end_wanted`` and then until the last worker has gone, or the farewell."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: WorkerConnection(self), sock=self._listener)
        stop = await self._load()
        await end_wanted.wait()
        server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._alone.wait(), self._farewell_s)
        for worker in list(self._workers):
            worker.cut()
        stop()

    @property
    def is_well(self) -> bool:
        """Whether no decode runs for so long that its thread must hang."""
        return self._longest_s() < LONGEST_DECODE_S

    async def _load(self) -> Callable[[], None]:
        """Load the weights in a thread, tell the workers, and answer how to stop the pool."""
        loop = asyncio.get_running_loop()
        try:
            from edge.asr.embedded.weights import require_packages

            require_packages()
            from edge.asr.embedded.moonshine import Moonshine
            from edge.asr.embedded.pool import DecodePool, Job

            engine = await asyncio.to_thread(Moonshine)
        except EdgescribeError as error:
            _log.error("the embedded recognizer cannot run", error=str(error))
            self._announce(Ready(str(error)))
            return lambda: None
        pool = DecodePool(engine, self._settings.threads)

        def submit(worker: WorkerConnection, request: Decode) -> None:
            def answer(message: Answer) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has closed
                    loop.call_soon_threadsafe(worker.send, message)

            pool.submit(Job(worker, request, answer))

        self._submit = submit
        self._forget = pool.forget
        self._longest_s = pool.longest_s
        self._announce(Ready())
        _log.info("the embedded recognizer is ready", threads=self._settings.threads)
        return pool.stop

    def _announce(self, ready: Ready) -> None:
        self._ready = ready
        for worker in self._workers:
            worker.send(ready)

    def joined(self, worker: WorkerConnection) -> None:
        """A worker connected; it is told when, or that, the weights are loaded."""
        self._workers.add(worker)
        self._alone.clear()
        if self._ready is not None:
            worker.send(self._ready)

    def left(self, worker: WorkerConnection) -> None:
        """A worker's connection ended; what it asked for is not decoded any more."""
        self._workers.discard(worker)
        if self._forget is not None:
            self._forget(worker)
        if not self._workers:
            self._alone.set()

    def decode(self, worker: WorkerConnection, request: Decode) -> None:
        """Queue a worker's request; ``ValueError`` before ``Ready`` or after a load that failed."""
        if self._submit is None:
            raise ValueError("a request came before the weights were loaded")
        self._submit(worker, request)


def run_inference(settings: EmbeddedSettings, ties: Ties) -> None:
    """Serve until standard input ends.

    SIGINT is ignored, because a terminal sends it to the whole group and the caretaker decides.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(ties.caretaker, signal.SIGKILL)
    asyncio.run(_serve(settings, ties))


async def _serve(settings: EmbeddedSettings, ties: Ties) -> None:
    loop = asyncio.get_running_loop()
    end_wanted = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end_wanted.set)
    reader = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )

    async def watch() -> None:
        while await reader.read(1024):
            pass
        end_wanted.set()

    listener = socket.socket(fileno=ties.listener)
    server = InferenceServer(settings, listener, ties.farewell_s)
    watcher = asyncio.create_task(watch())
    heart = asyncio.create_task(_beat(ties.beats, server))
    try:
        await server.run(end_wanted)
    finally:
        watcher.cancel()
        heart.cancel()
        pipe.close()


async def _beat(pipe: int, server: InferenceServer) -> None:
    """Say that this process lives while it does; cancelled at its end."""
    os.set_blocking(pipe, False)
    while True:
        # A caretaker that does not read has stopped, or is gone and will be noticed at the stdin.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            if server.is_well:
                os.write(pipe, b".")
        await asyncio.sleep(BEAT_S)
