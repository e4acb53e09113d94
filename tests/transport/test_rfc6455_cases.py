"""Every case of ``rfc6455`` through a real socket: the lane, and ``websockets`` as the oracle."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from _native import frames
from _native.frames import BINARY, CLOSE, PONG, TEXT, Decoder
from edge.transport.interface import Limits
from tests.transport import rfc6455
from tests.transport.rfc6455 import MAX_MESSAGE_BYTES, Case, Frame
from tests.transport.support import PATIENCE_S, Recorder, handshake, serving, settings

AT_ONCE = 8
"""Conversations that are held at the same time."""


class Outcome(NamedTuple):
    """What a client saw: echoes, pongs, and the code of the close frame (1006 = there was none)."""

    echoes: tuple[Frame, ...]
    pongs: tuple[bytes, ...]
    close: int


class Echo(Recorder):
    """Sends every message back as it came."""

    def message(self, data: bytes, is_text: bool) -> None:
        super().message(data, is_text)
        (self.socket.send_text if is_text else self.socket.send_binary)(data)


@contextlib.asynccontextmanager
async def lane() -> AsyncIterator[int]:
    """The lane as an echo server, and its port."""
    roomy = settings(client_outbox_bytes=8 * MAX_MESSAGE_BYTES)
    async with serving(roomy, Limits(max_message_bytes=MAX_MESSAGE_BYTES)) as server:
        server.make = Echo
        yield server.port


@contextlib.asynccontextmanager
async def oracle() -> AsyncIterator[int]:
    """An echo server of the ``websockets`` library, and its port."""

    async def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with serve(
        echo, "127.0.0.1", 0, compression=None, max_size=MAX_MESSAGE_BYTES, ping_interval=None
    ) as server:
        (listener,) = server.sockets
        yield listener.getsockname()[1]


async def converse(port: int, case: Case, patience_s: float = PATIENCE_S) -> Outcome:
    """Hold one conversation to the end of the TCP connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    echoes: list[Frame] = []
    pongs: list[bytes] = []
    code = 1006
    decoder = Decoder(2 * MAX_MESSAGE_BYTES, masked=False)

    async def listen(echo_count: int | None) -> None:
        nonlocal code
        while echo_count is None or len(echoes) < echo_count or len(pongs) < len(case.pongs):
            data = await reader.read(1 << 16)
            if not data:
                return
            for opcode, payload in decoder.decode(data):
                if opcode == CLOSE:
                    code = frames.parse_close(payload)[0]
                elif opcode == PONG:
                    pongs.append(payload)
                elif opcode in (TEXT, BINARY):
                    echoes.append((opcode, payload))
            if echo_count is not None and code != 1006:
                return

    async def send() -> None:
        for write in case.sent:
            if isinstance(write, bytes):
                writer.write(write)
                await writer.drain()
            else:
                await listen(write)

    try:
        async with asyncio.timeout(patience_s):
            writer.write(handshake())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            with contextlib.suppress(ConnectionError):
                if any(isinstance(write, int) for write in case.sent):
                    await send()
                else:
                    sending = asyncio.create_task(send())
                    await listen(0 if case.close else len(case.echoes))
                    await sending
                if case.close is None:
                    writer.write(rfc6455.close(1000))
                await listen(None)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return Outcome(tuple(echoes), tuple(pongs), code)


async def hold(port: int, cases: list[Case]) -> dict[str, Outcome | str]:
    """Outcomes by case; the name of the error where a conversation did not come to its end."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> tuple[str, Outcome | str]:
        async with room:
            try:
                return case.id, await converse(port, case)
            except (TimeoutError, OSError) as error:
                return case.id, repr(error)

    return dict(await asyncio.gather(*map(one, cases)))


def expected(case: Case) -> Outcome:
    return Outcome(case.echoes, case.pongs, 1000 if case.close is None else case.close)


def short(outcome: Outcome | str) -> str:
    """Small enough to read where a payload has megabytes."""
    if isinstance(outcome, str):
        return outcome
    echoes = [(opcode, len(payload), payload[:24]) for opcode, payload in outcome.echoes[:4]]
    return f"{len(outcome.echoes)} echoes {echoes}, pongs {outcome.pongs}, close {outcome.close}"


@pytest.mark.parametrize("section", rfc6455.SECTIONS)
async def test_the_lane_answers_every_case_as_the_table_says(section: str) -> None:
    cases = list(rfc6455.SECTIONS[section]())
    async with lane() as port:
        outcomes = await hold(port, cases)
    wrong = {
        case.id: f"{short(outcomes[case.id])}, not {short(expected(case))}"
        for case in cases
        if outcomes[case.id] != expected(case)
    }
    assert not wrong


@pytest.mark.parametrize("section", rfc6455.SECTIONS)
async def test_websockets_answers_alike_except_where_the_table_says_why(section: str) -> None:
    cases = [case for case in rfc6455.SECTIONS[section]() if not case.differs]
    async with oracle() as port:
        outcomes = await hold(port, cases)
    wrong = {
        case.id: f"{short(outcomes[case.id])}, not {short(expected(case))}"
        for case in cases
        if outcomes[case.id] != expected(case)
    }
    assert not wrong


def test_the_table_names_each_case_once() -> None:
    names = Counter(case.id for section in rfc6455.SECTIONS.values() for case in section())
    assert not [name for name, count in names.items() if count > 1]
    assert names.total() > 400
