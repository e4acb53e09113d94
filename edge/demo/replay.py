"""Sends a recorded conversation to a gateway again: a dump's messages at their recorded spacing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from edge.demo.client import (
    CONNECT_TIMEOUT_S,
    ServerMessage,
    close_reason,
    connected,
    decode,
    transcribe_url,
)
from edge.errors import EdgescribeError

LATE_FINALS_S = 5.0


class BadDump(EdgescribeError):
    """A dump cannot be read; the message names the file and the line."""


class DumpLine(msgspec.Struct, frozen=True):
    """One line of ``media.jsonl``."""

    timestamp: float
    """Unix milliseconds at which the message was received or sent."""
    data: str
    """The message's text."""
    direction: str = "incoming"


class Replayed(msgspec.Struct, kw_only=True):
    """What a replay did and heard."""

    sent: int = 0
    """Messages sent."""
    finals: int = 0
    interims: int = 0
    errors: int = 0
    """``error`` events of the gateway."""
    cut_off: str | None = None
    """How the gateway closed the connection before everything was sent, if it did."""


_ASIDE = re.compile(r".*\.([1-9][0-9]*)")
_line_decoder = msgspec.json.Decoder(DumpLine)


def files_of(path: Path) -> list[Path]:
    """A recording's files, oldest first: ``media.jsonl.2``, ``media.jsonl.1``, ``media.jsonl``.

    A file that was set aside may be named itself; it is then read alone.
    """
    found = ((_ASIDE.fullmatch(each.name), each) for each in path.parent.glob(f"{path.name}.*"))
    aside = [(int(match[1]), each) for match, each in found if match]
    older = [each for _, each in sorted(aside, reverse=True)]
    return [*older, path] if path.exists() or not older else older


def read_dump(path: Path) -> Iterator[DumpLine]:
    """The messages a client sent, in order, over all files of the recording.

    Raises ``BadDump`` at the first line that is none.
    """
    for file in files_of(path):
        yield from _read(file)


def _read(path: Path) -> Iterator[DumpLine]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    entry = _line_decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise BadDump(f"{path}, line {number}: not a dump's line: {error}") from None
                if entry.direction == "incoming":
                    yield entry
    except OSError as error:
        raise BadDump(f"{path} cannot be read: {error.strerror or error}") from None


def check_dump(path: Path) -> tuple[int, float]:
    """Read a dump once, for its faults: the number of messages and the seconds they span."""
    count = 0
    first_ms = last_ms = 0.0
    for line in read_dump(path):
        first_ms = line.timestamp if count == 0 else first_ms
        last_ms = line.timestamp
        count += 1
    if not count:
        raise BadDump(f'{path} holds no message with "direction":"incoming"')
    return count, max(0.0, last_ms - first_ms) / 1000


async def replay(
    path: Path,
    address: str,
    on_message: Callable[[float, ServerMessage], None],
    *,
    speed: float = 1.0,
    headers: Mapping[str, str] | None = None,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
) -> Replayed:
    """Replay a dump: ``speed`` 2 is twice as fast as recorded, 0 knows no delay.

    Waits up to 5 s for late finals, less when the gateway closes. ``on_message`` is told each
    message and the seconds since the connection opened. Raises ``BadDump`` and ``Unreachable``.
    """
    check_dump(path)
    url = transcribe_url(address, {"sendBack": "true", "sendBackInterim": "true"})
    done = Replayed()
    async with connected(url, headers, connect_timeout_s) as socket:
        zero_s = time.perf_counter()

        async def listen() -> None:
            async for data in socket:
                message = decode(data)
                if message is None:
                    continue
                if message.is_result:
                    done.interims += message.is_interim
                    done.finals += not message.is_interim
                done.errors += message.event == "error"
                on_message(time.perf_counter() - zero_s, message)

        listening = asyncio.create_task(listen())
        sending = asyncio.create_task(_send(socket, path, speed, zero_s, done))
        try:
            await asyncio.wait([listening, sending], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await asyncio.wait([listening], timeout=LATE_FINALS_S)
            for task in (listening, sending):
                if task.done():
                    task.result()
            if not sending.done():
                done.cut_off = close_reason(socket)
        except ConnectionClosed:
            done.cut_off = close_reason(socket)
        finally:
            for task in (listening, sending):
                task.cancel()
            await asyncio.gather(listening, sending, return_exceptions=True)
    return done


async def _send(
    socket: ClientConnection, path: Path, speed: float, zero_s: float, done: Replayed
) -> None:
    first_ms: float | None = None
    for line in read_dump(path):
        first_ms = line.timestamp if first_ms is None else first_ms
        if speed > 0:
            due_s = zero_s + (line.timestamp - first_ms) / 1000 / speed
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        await socket.send(line.data)
        done.sent += 1
