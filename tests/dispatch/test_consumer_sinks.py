"""Lines are whole, in order and bounded on disk, also when a disk is full or a reader stops."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatch import Envelope
from dispatch.errors import Refused, Unreachable
from dispatch.sinks.jsonl import JsonlSink
from dispatch.sinks.lines import LineSink
from dispatch.sinks.stdout import StdoutSink
from tests.dispatch.support.queues import envelopes
from tests.support.disks import small_disk


def written(*paths: Path) -> list[str]:
    """The texts of the files' lines, each of which is a message."""
    lines = b"".join(path.read_bytes() for path in paths).splitlines()
    return [json.loads(line)["text"] for line in lines]


def files(folder: Path) -> list[Path]:
    """The files of ``out.jsonl``, the oldest first."""
    found = [path for path in folder.glob("out.jsonl*") if path.suffix != ".lock"]
    return sorted(found, key=lambda path: -int(path.suffix[1:] if path.suffix != ".jsonl" else 0))


async def send_all(sink: LineSink, waiting: list[Envelope]) -> None:
    while waiting:
        del waiting[: await sink.send(waiting)]


async def test_a_line_has_the_message_s_members_and_no_others(tmp_path: Path) -> None:
    body = b'{"sessionId":"red",\n "endpointId":"anna","text":"a\\nb","timestamp":1,"more":{}}'
    path = tmp_path / "new" / "out.jsonl"
    async with JsonlSink(path) as sink:
        assert await sink.send([Envelope("red:1", "red", body, 1, "e", 1)]) == 1
    expected = b'{"sessionId":"red","endpointId":"anna","text":"a\\nb","timestamp":1}\n'
    assert path.read_bytes() == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_is_no_message_is_refused_and_holds_up_nothing(tmp_path: Path) -> None:
    good = envelopes("red", range(2))
    bad = Envelope("red:9", "red", b"null", 1, "e", 1)
    async with JsonlSink(tmp_path / "out.jsonl") as sink:
        assert await sink.send([good[0], bad, good[1]]) == 1
        with pytest.raises(Refused) as refusal:
            await sink.send([bad, good[1]])
        assert refusal.value.final
        assert await sink.send([good[1]]) == 1
    assert written(tmp_path / "out.jsonl") == ["0", "1"]


async def test_files_are_rotated_by_size_and_the_oldest_forgotten(tmp_path: Path) -> None:
    async with JsonlSink(tmp_path / "out.jsonl", max_bytes=500, keep=3, is_synced=True) as sink:
        for number in range(60):
            await sink.send(envelopes("red", [number]))
    kept = files(tmp_path)
    assert [path.name for path in kept] == [
        *(f"out.jsonl.{number}" for number in (3, 2, 1)),
        "out.jsonl",
    ]
    assert all(path.stat().st_size <= 500 for path in kept)
    texts = written(*kept)
    assert texts == [str(number) for number in range(60 - len(texts), 60)]


async def test_several_writers_share_a_file_and_its_rotation(tmp_path: Path) -> None:
    """As consumers do that are given the same path: no line is lost or mixed with another."""
    path = tmp_path / "out.jsonl"
    async with (
        JsonlSink(path, max_bytes=2000, keep=50) as one,
        JsonlSink(path, max_bytes=2000, keep=50) as other,
    ):
        await asyncio.gather(
            *(
                send_all(sink, envelopes(f"{name}{session}", range(50)))
                for name, sink in (("a", one), ("b", other))
                for session in range(4)
            )
        )
    lines = [
        json.loads(line) for each in files(tmp_path) for line in each.read_bytes().splitlines()
    ]
    assert len(lines) == 400
    for session in {line["sessionId"] for line in lines}:
        heard = [line["text"] for line in lines if line["sessionId"] == session]
        assert heard == [str(number) for number in range(50)]


async def test_a_line_that_nobody_lived_to_end_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    async with JsonlSink(path) as sink:
        await sink.send(envelopes("red", [0]))
    with path.open("ab") as file:
        file.write(b'{"sessionId":"red","endpo' + b"x" * 100_000)
    async with JsonlSink(path) as sink:
        await sink.send(envelopes("red", [1]))
    assert written(path) == ["0", "1"]


async def test_a_full_disk_is_waited_for_and_leaves_no_half_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1) as folder:
        path = folder / "out.jsonl"
        async with JsonlSink(path) as sink:
            await sink.send(envelopes("red", [0]))
            ballast = folder / "ballast"
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(bytes(4096))
            waiting = envelopes("red", range(1, 100))
            with pytest.raises(Unreachable, match="No space left on device"):
                await send_all(sink, waiting)
            assert written(path) == [str(number) for number in range(100 - len(waiting))]
            ballast.unlink()
            await send_all(sink, waiting)
        assert written(path) == [str(number) for number in range(100)]


@asynccontextmanager
async def piped(deadline_s: float) -> AsyncIterator[tuple[StdoutSink, int]]:
    """A sink that writes into a pipe, and the pipe's other end."""
    reader, writer = os.pipe()
    try:
        async with StdoutSink(writer, deadline_s) as sink:
            yield sink, reader
    finally:
        os.close(reader)
        os.close(writer)


async def read_lines(reader: int, count: int) -> list[dict[str, Any]]:
    """So many lines."""
    data = b""
    while data.count(b"\n") < count:
        data += await asyncio.to_thread(os.read, reader, 65536)
    return [json.loads(line) for line in data.splitlines()]


async def test_standard_output_has_each_line_at_once() -> None:
    async with piped(5.0) as (sink, reader):
        for number in range(3):
            await sink.send(envelopes("red", [number]))
            [line] = await read_lines(reader, 1)
            assert line["text"] == str(number)


async def test_a_reader_that_pauses_gets_whole_lines_and_misses_none() -> None:
    """What was cut off is ended before anything else; its message comes again."""
    async with piped(1.0) as (sink, reader):
        waiting = envelopes("red", range(3000))
        with pytest.raises(Unreachable):
            await send_all(sink, waiting)
        assert 0 < len(waiting) < 3000
        sending = asyncio.create_task(send_all(sink, waiting))
        seen: set[str] = set()
        rest = b""
        while "2999" not in seen:
            *lines, rest = (rest + await asyncio.to_thread(os.read, reader, 65536)).split(b"\n")
            seen.update(json.loads(line)["text"] for line in lines)
        await sending
        assert seen == {str(number) for number in range(3000)}


async def test_a_reader_that_has_ended_is_told_of() -> None:
    reader, writer = os.pipe()
    async with StdoutSink(writer) as sink:
        os.close(reader)
        with pytest.raises(Unreachable):
            await sink.send(envelopes("red", [0]))
        assert sink.gone.is_set()
    os.close(writer)
