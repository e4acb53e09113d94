"""``edgescribe record`` and ``edgescribe smoke ingest`` against a scripted meeting."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import pytest

from edge.cli import record, smoke
from edge.demo.recorder import RATE_HZ, Refused
from edge.demo.smoke import SmokeFailed
from tests.demo.recordings import tone, write_wav
from tests.demo.scripted_meeting import Meeting, serving


async def run(command: object, *words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)  # type: ignore[attr-defined]
    status: int = await asyncio.to_thread(command.run, parser.parse_args(words))  # type: ignore[attr-defined]
    return status


@pytest.fixture
def wav(tmp_path: Path) -> str:
    return str(write_wav(tmp_path / "a.wav", tone(2.5, 48000).pcm, 48000))


async def test_a_file_is_streamed_and_what_was_stored_is_told(
    wav: str, capsys: pytest.CaptureFixture[str]
) -> None:
    meeting = Meeting()
    async with serving(meeting) as address:
        words = (wav, f"http://{address}", "--role", "teacher", "--session-id", "m1")
        assert await run(record, *words, "--speed", "0") == 0
    assert meeting.paths == ["/v1/audio/ws/m1/teacher"]
    assert sum(map(len, meeting.chunks.values())) == 5 * RATE_HZ
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "session m1, teacher"
    assert said[-1].startswith("2.5 s stored as chunks 1 to 3, the slowest ack after ")
    assert len(said) == 2


async def test_what_is_heard_is_printed_when_it_is_asked_for(
    wav: str, capsys: pytest.CaptureFixture[str]
) -> None:
    meeting = Meeting()
    async with serving(meeting) as address:
        url = f"ws://{address}/v1/audio/ws/m1/students"
        assert await run(record, wav, url, "--speed", "0", "--transcripts") == 0
    assert meeting.paths == ["/v1/audio/ws/m1/students?transcripts=true"]
    assert "  1.50 s  students  the last word" in capsys.readouterr().out.splitlines()


async def test_a_refusal_is_the_end(wav: str) -> None:
    meeting = Meeting()
    meeting.refused = {1: "no room"}
    async with serving(meeting) as address:
        with pytest.raises(Refused, match="no room"):
            await run(record, wav, address, "--speed", "0")


async def test_the_trial_of_ingest_prints_what_is_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    meeting = Meeting()
    async with serving(meeting) as address:
        bases = ("--base-http", f"http://{address}", "--base-ws", f"ws://{address}")
        assert await run(smoke, "ingest", *bases, "--session-id", "s", "--chunks", "4") == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "session_id": "s",
        "received_chunks": 4,
        "last_seq": 4,
        "bytes_stored": 4 * 2 * RATE_HZ,
    }
    assert meeting.names() == ["hello", *["chunk"] * 4, "status", "close"]
    assert meeting.frames[-1]["reason"] == "smoke-complete"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"lost": {2}}, "session s: received_chunks is 2, not 3"),
        ({"refused": {3: "no room"}}, "session s: the gateway answered: no room"),
        ({"silent": {"chunk"}}, "session s: waited 0.2 s for an ack of each chunk"),
    ],
)
async def test_the_trial_of_ingest_fails_for_whatever_is_not_stored(
    fault: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.demo.smoke.ANSWER_WITHIN_S", 0.2)
    meeting = Meeting()
    for name, value in fault.items():
        setattr(meeting, name, value)
    async with serving(meeting) as address:
        bases = ("--base-http", f"http://{address}", "--base-ws", f"ws://{address}")
        with pytest.raises(SmokeFailed, match=said):
            await run(smoke, "ingest", *bases, "--session-id", "s")
