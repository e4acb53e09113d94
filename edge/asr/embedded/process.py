"""The inference process: one per machine, it turns segments of all workers into text.

Comes in: ``Decode`` requests over a Unix socket. Goes out: one ``Answer`` each. It holds no state
that a worker could miss: when it dies, its caretaker starts another and the workers ask again.

Life: it ends when standard input ends, which the caretaker holds open. From then on it takes no new
connection, serves those there are until they close, and gives up after ``FAREWELL_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from edge.asr.embedded.messages import (
    Answer,
    Decode,
    Deframer,
    Ready,
    check_socket_path,
    frame,
)
from edge.asr.embedded.settings import EmbeddedSettings
from edge.errors import EdgescribeError
from edge.logs import get_logger

FAREWELL_S: Final = 20.0
"""How long workers that stay connected are served after the end was asked for: longer than their
drain is by default."""

_log: Final = get_logger("edge.asr.embedded")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Decode)


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

    def __init__(self, settings: EmbeddedSettings, socket_path: Path) -> None:
        self._settings = settings
        self._socket_path = socket_path
        self._workers: set[WorkerConnection] = set()
        self._ready: Ready | None = None
        self._submit: Callable[[WorkerConnection, Decode], None] | None = None
        self._forget: Callable[[WorkerConnection], None] | None = None
        self._alone = asyncio.Event()
        self._alone.set()

    async def run(self, end_wanted: asyncio.Event) -> None:
        """Serve until ``end_wanted`` and then until the last worker has gone, or ``FAREWELL_S``."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(FileNotFoundError):
            self._socket_path.unlink()
        before = os.umask(0o177)
        try:
            listener = await loop.create_unix_server(
                lambda: WorkerConnection(self), str(self._socket_path)
            )
        finally:
            os.umask(before)
        stop = await self._load()
        await end_wanted.wait()
        listener.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._alone.wait(), FAREWELL_S)
        for worker in list(self._workers):
            worker.cut()
        stop()
        with contextlib.suppress(FileNotFoundError):
            self._socket_path.unlink()

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


def run_inference(settings: EmbeddedSettings, socket_path: Path) -> None:
    """Serve at ``socket_path`` until standard input ends; ``SettingError`` if the path is too long.

    SIGINT is ignored, because a terminal sends it to the whole group and the caretaker decides.
    """
    check_socket_path(socket_path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(settings, socket_path))


async def _serve(settings: EmbeddedSettings, socket_path: Path) -> None:
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

    watcher = asyncio.create_task(watch())
    try:
        await InferenceServer(settings, socket_path).run(end_wanted)
    finally:
        watcher.cancel()
        pipe.close()
