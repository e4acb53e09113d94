"""Recordings: every line that fits is written in order; a failing disk costs lines, not audio."""

from __future__ import annotations

import json
from pathlib import Path

from edge.session.dump import Dumps, DumpSettings


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
    assert 30 < dumps.dropped < 40
    dumps.start()
    await dumps.stop()
    assert len(lines(tmp_path / "dumps/s/media.jsonl")) == 100 - dumps.dropped


async def test_a_folder_that_cannot_be_written_is_survived_and_counted(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    settings = DumpSettings(dump_websocket_messages=True, dump_base_path=str(blocked))
    dumps = Dumps(settings, tmp_path)
    dumps.start()
    dumps.incoming("s", b"{}")
    await dumps.stop()
    assert dumps.dropped == 1


async def test_a_session_that_cannot_be_recorded_costs_no_other_its_lines(tmp_path: Path) -> None:
    (tmp_path / "dumps").mkdir()
    (tmp_path / "dumps/blocked").write_text("in the way")
    dumps = Dumps(DumpSettings(dump_websocket_messages=True), tmp_path)
    dumps.start()
    for name in ("blocked", "standup"):
        dumps.incoming(name, b"{}")
    await dumps.stop()
    assert len(lines(tmp_path / "dumps/standup/media.jsonl")) == 1
    assert dumps.dropped == 1


async def test_a_session_named_like_a_recording_is_not_in_the_way_of_one(tmp_path: Path) -> None:
    dumps = Dumps(DumpSettings(dump_websocket_messages=True), tmp_path)
    dumps.start()
    for name in ("media.jsonl", None):
        dumps.incoming(name, b"{}")
    await dumps.stop()
    assert dumps.dropped == 0
    assert len(lines(tmp_path / "dumps/media.jsonl")) == 1
