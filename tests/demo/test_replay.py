"""``edgescribe replay`` against a scripted gateway, through its arguments."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from edge.cli import replay as command
from edge.demo import replay as room
from edge.demo.client import ServerMessage, Unreachable
from edge.demo.gateway import free_port
from edge.demo.replay import BadDump, check_dump
from tests.demo.scripted import gateway, result

Run = Callable[..., int]


def dump(path: Path, *messages: str, spacing_ms: int = 100) -> Path:
    lines = [
        json.dumps(
            {"timestamp": 1_700_000_000_000 + n * spacing_ms, "direction": way, "data": data}
        )
        for n, message in enumerate(messages)
        for way, data in (("incoming", message), ("outgoing", "what the gateway said"))
    ]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


async def run(*words: str) -> int:
    return await asyncio.to_thread(command.run, parse(*words))


async def answering(socket: ServerConnection) -> None:
    """Answers each message with an interim, ``session-end`` with a final and the close."""
    assert socket.request is not None
    if socket.request.headers.get("X-Wanted") == "no":
        return
    async for data in socket:
        if json.loads(data)["event"] == "session-end":
            await socket.send(result("that was all"))
            return
        await socket.send(result("that", interim=True))


SHORT = ('{"event":"media"}', '{"event":"media"}', '{"event":"session-end"}')


async def test_it_prints_what_it_hears_and_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dump(tmp_path / "media.jsonl", *SHORT)
    async with gateway(answering) as address:
        status = await run(str(path), address, "--speed", "0", "--assert-min-finals", "1")
    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[-1] == "INTEGRATION_RESULT: PASS"
    assert lines[-2] == "3 messages sent, 1 finals, 2 interims"
    assert "abcdef01-1  that was all" in lines[-3]
    assert "abcdef01-1  ... that" in lines[0]


async def test_too_few_finals_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = dump(tmp_path / "media.jsonl", *SHORT)
    async with gateway(answering) as address:
        assert await run(str(path), address, "--speed", "0", "--assert-min-finals", "2") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "INTEGRATION_RESULT: FAIL"


async def test_without_an_assertion_hearing_nothing_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LATE_FINALS_S", 0.1)
    path = dump(tmp_path / "media.jsonl", '{"event":"media"}')
    async with gateway(answering) as address:
        assert await run(str(path), address) == 0
    assert "INTEGRATION_RESULT" not in capsys.readouterr().out


@pytest.mark.parametrize(("speed", "takes_s"), [("1", 0.4), ("4", 0.1), ("0", 0.0)])
async def test_messages_keep_their_spacing_over_the_speed(
    tmp_path: Path, speed: str, takes_s: float
) -> None:
    came_s: list[float] = []

    async def clock(socket: ServerConnection) -> None:
        async for data in socket:
            came_s.append(time.perf_counter())
            if json.loads(data)["event"] == "session-end":
                return

    path = dump(tmp_path / "media.jsonl", *SHORT, spacing_ms=200)
    async with gateway(clock) as address:
        assert await run(str(path), address, "--speed", speed) == 0
    assert len(came_s) == 3
    assert came_s[-1] - came_s[0] >= takes_s * 0.95
    assert came_s[-1] - came_s[0] < takes_s + 1


async def test_a_final_after_the_last_message_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def slow(socket: ServerConnection) -> None:
        async for _ in socket:
            await asyncio.sleep(0.5)
            await socket.send(result("late"))
            return

    path = dump(tmp_path / "media.jsonl", '{"event":"media"}')
    async with gateway(slow) as address:
        assert await run(str(path), address, "--assert-min-finals", "1") == 0
    assert "late" in capsys.readouterr().out


async def test_headers_are_sent(tmp_path: Path) -> None:
    got: list[str | None] = []

    async def see(socket: ServerConnection) -> None:
        assert socket.request is not None
        got.append(socket.request.headers.get("X-Token"))

    path = dump(tmp_path / "media.jsonl", '{"event":"media"}')
    async with gateway(see) as address:
        await run(str(path), address, "--headers", '{"X-Token":"abc"}')
    assert got == ["abc"]


async def test_a_gateway_that_closes_early_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def reject(socket: ServerConnection) -> None:
        await socket.close(1002, "Invalid provider: x")

    path = dump(tmp_path / "media.jsonl", *['{"event":"media"}'] * 20, spacing_ms=20)
    async with gateway(reject) as address:
        assert await run(str(path), address) == 0
    out = capsys.readouterr().out
    assert "the gateway closed the connection: 1002 Invalid provider: x" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"timestamp":1,"data":"a"}\nnonsense\n', r"media\.jsonl, line 2: not a dump's line"),
        ('{"timestamp":"x","data":"a"}\n', r"line 1: .*Expected `float`.*\$\.timestamp"),
        ('{"timestamp":1}\n', r"line 1: .*missing required field `data`"),
        ("", r'holds no message with "direction":"incoming"'),
        ('{"timestamp":1,"direction":"outgoing","data":"a"}', "holds no message"),
    ],
)
def test_a_bad_dump_is_named_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "media.jsonl"
    path.write_text(content)
    with pytest.raises(BadDump, match=said) as caught:
        check_dump(path)
    assert "\n" not in str(caught.value)


def test_a_missing_dump_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDump, match=r"none\.jsonl cannot be read: No such file"):
        check_dump(tmp_path / "none.jsonl")


async def test_nobody_listening_is_one_line(tmp_path: Path) -> None:
    path = dump(tmp_path / "media.jsonl", *SHORT)
    with pytest.raises(Unreachable, match="connection refused; is a gateway running there"):
        await run(str(path), f"127.0.0.1:{free_port()}")


async def test_an_assertion_ends_with_its_result_even_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dump(tmp_path / "media.jsonl", *SHORT)
    status = await run(str(path), f"127.0.0.1:{free_port()}", "--assert-min-finals", "1")
    captured = capsys.readouterr()
    assert status == 1
    assert captured.out.splitlines()[-1] == "INTEGRATION_RESULT: FAIL"
    assert "connection refused" in captured.err


@pytest.mark.parametrize("words", [("--speed", "-1"), ("--speed", "x"), ("--headers", "[1]")])
def test_bad_options_are_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("a", "b", *words)
    assert words[0] in capsys.readouterr().err


async def test_it_stops_when_nobody_reads_its_output(tmp_path: Path) -> None:
    def nobody_reads(at_s: float, message: ServerMessage) -> None:
        raise BrokenPipeError

    path = dump(tmp_path / "media.jsonl", *['{"event":"media"}'] * 100, spacing_ms=1000)
    async with gateway(answering) as address:
        with pytest.raises(BrokenPipeError):
            await room.replay(path, address, nobody_reads)
