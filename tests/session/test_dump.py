"""Recordings: every line that fits is written in order; a failing disk costs lines, not audio."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from multiprocessing import get_context
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edge.demo.replay import read_dump
from edge.session import dump, rotation
from edge.session.dump import Dumps, DumpSettings
from edge.session.rotation import append


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_messages_and_finals_of_a_session_are_written_in_order(tmp_path: Path) -> None:
    dumps = Dumps(DumpSettings(dump_websocket_messages=True, dump_transcripts=True), tmp_path)
    dumps.start()
    for number in range(100):
        dumps.incoming("standup", b'{"event":"ping","id":%d}' % number)
    dumps.final("standup", b'{"text":"hello"}')
    dumps.incoming(None, b"\xff")
    await dumps.stop()

    recorded = lines(tmp_path / "dumps/standup/media.jsonl")
    assert [json.loads(str(line["data"]))["id"] for line in recorded] == list(range(100))
    assert {line["direction"] for line in recorded} == {"incoming"}
    assert lines(tmp_path / "dumps/standup/transcript.jsonl")[0]["message"] == {"text": "hello"}
    assert lines(tmp_path / "dumps/media.jsonl")[0]["data"] == "\ufffd"


async def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    base = tmp_path / "base"
    dumps = Dumps(DumpSettings(dump_websocket_messages=True, dump_base_path=str(base)), tmp_path)
    dumps.start()
    for name in ("../outside", "..", "a/b", "/etc", "x" * 3000):
        dumps.incoming(name, b"{}")
    await dumps.stop()
    written = list(base.glob("*/media.jsonl"))
    assert len(written) == 5 and set(tmp_path.iterdir()) == {base}


async def test_a_full_buffer_drops_lines_and_counts_them(tmp_path: Path) -> None:
    settings = DumpSettings(dump_websocket_messages=True, dump_buffer_bytes=65536)
    dumps = Dumps(settings, tmp_path)
    for _ in range(100):
        dumps.incoming("s", b"x" * 1000)
    assert 30 < dumps.counts.dropped < 40
    dumps.start()
    await dumps.stop()
    assert len(lines(tmp_path / "dumps/s/media.jsonl")) == 100 - dumps.counts.dropped


async def test_a_folder_that_cannot_be_written_is_survived_and_counted(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    settings = DumpSettings(dump_websocket_messages=True, dump_base_path=str(blocked))
    dumps = Dumps(settings, tmp_path)
    dumps.start()
    dumps.incoming("s", b"{}")
    await dumps.stop()
    assert dumps.counts.dropped == 1


async def test_a_session_that_cannot_be_recorded_costs_no_other_its_lines(tmp_path: Path) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps/blocked").write_text("in the way")
    dumps = Dumps(DumpSettings(dump_websocket_messages=True), tmp_path)
    dumps.start()
    for name in ("blocked", "standup"):
        dumps.incoming(name, b"{}")
    await dumps.stop()
    assert len(lines(tmp_path / "dumps/standup/media.jsonl")) == 1
    assert (dumps.counts.written, dumps.counts.dropped) == (1, 1)


async def test_a_session_named_like_a_recording_is_not_in_the_way_of_one(tmp_path: Path) -> None:
    dumps = Dumps(DumpSettings(dump_websocket_messages=True), tmp_path)
    dumps.start()
    for name in ("media.jsonl", "media.jsonl.1", None):
        dumps.incoming(name, b"{}")
    await dumps.stop()
    assert dumps.counts.dropped == 0
    assert len(lines(tmp_path / "dumps/media.jsonl")) == 1


async def test_a_recording_is_bounded_and_its_newest_lines_are_replayed_in_order(
    tmp_path: Path,
) -> None:
    settings = DumpSettings(dump_websocket_messages=True, dump_file_bytes=65536, dump_files=3)
    dumps = Dumps(settings, tmp_path)
    dumps.start()
    for number in range(4000):
        dumps.incoming("s", b'{"event":"ping","id":%d}' % number)
    await dumps.stop()
    folder = tmp_path / "dumps/s"
    names = {"media.jsonl", "media.jsonl.1", "media.jsonl.2"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(path.stat().st_size <= 65536 for path in folder.iterdir())
    replayed = [json.loads(line.data)["id"] for line in read_dump(folder / "media.jsonl")]
    assert replayed == list(range(4000 - len(replayed), 4000)) and len(replayed) > 1000
    alone = [json.loads(line.data)["id"] for line in read_dump(folder / "media.jsonl.2")]
    assert alone == replayed[: len(alone)]


def test_a_line_longer_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append(path, b"short\n" + b"x" * 100 + b"\nshort\n", 50, 5)
    assert [(tmp_path / f"a.jsonl{end}").read_bytes()[:5] for end in (".2", ".1", "")] == [
        b"short", b"xxxxx", b"short",
    ]  # fmt: skip


def _append_many(path: Path, name: bytes) -> None:
    for number in range(200):
        append(path, b"%s %d\n" % (name, number), 1000, 1000)


def test_two_workers_may_record_one_session(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    forked = get_context("fork")
    workers = [forked.Process(target=_append_many, args=(path, name)) for name in (b"a", b"b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir()).split(b"\n")[:-1]
    assert len(set(written)) == 400


async def test_a_full_disk_costs_lines_is_logged_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    really = os.write

    def write(file: int, data: memoryview) -> int:
        if full:
            really(file, data[:7])
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(file, data)

    monkeypatch.setattr(rotation.os, "write", write)
    monkeypatch.setattr(dump, "_RETRY_S", 0.3)
    with capture_logs() as logged:
        dumps = Dumps(DumpSettings(dump_websocket_messages=True), tmp_path)
        dumps.start()
        for number in range(2):
            dumps.incoming("s", b"%d" % number)
            while dumps.counts.dropped == number:
                await asyncio.sleep(0.02)
        full = False
        dumps.incoming("s", b"2")
        while not dumps.counts.written:
            await asyncio.sleep(0.02)
        await dumps.stop()
    assert [line["data"] for line in lines(tmp_path / "dumps/s/media.jsonl")] == ["2"]
    said = [each["event"] for each in logged]
    assert [sum(words in each for each in said) for words in ("failed", "written again")] == [1, 1]
