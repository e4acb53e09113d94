"""``edgescribe dispatcher``: a process that may be stopped, killed and misused."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from dispatch import Envelope
from dispatch.local_queue import LocalQueue
from dispatch.messages import decode_message
from edge.cli.main import main
from edge.dispatching.ways import QUEUE_FILE
from tests.dispatch.consumer_kills import run
from tests.dispatch.support.queues import envelopes
from tests.support.server import clean_environment

SINK = """
from dispatch import RPCResponse, TranscriptionDispatcher

class Mine(TranscriptionDispatcher):
    async def dispatch(self, message):
        with open("mine.txt", "a") as file:
            print(message.text, file=file)
        return RPCResponse(success=True, dispatched=1)
"""


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a folder of its own, where its data is."""
    command = [sys.executable, "-m", "edge.cli", "dispatcher", "--data-dir", "."]
    process = subprocess.Popen(
        [*command, "--batch-wait", "0", *arguments],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """The status of a process that is told to end, or ends, and the rest of its log."""
    assert process.stderr is not None
    log = process.stderr.read().decode()
    return process.wait(15), log


async def put(folder: Path, messages: list[Envelope]) -> None:
    async with LocalQueue(folder / QUEUE_FILE) as queue:
        await queue.put(messages)


async def test_a_killed_consumer_costs_no_message_and_no_order(tmp_path: Path) -> None:
    """One of three; the others take over what it had read. The long form is consumer_kills."""
    outcome = await run("redis", tmp_path, messages=400, kills=1)
    assert (outcome.arrived, outcome.lost, outcome.unordered) == (400, [], [])
    assert outcome.statuses == [0, 0, 0]


async def test_messages_go_to_standard_output_until_a_stop(tmp_path: Path) -> None:
    """What was refused is listed, and put back."""
    bad = Envelope("red:9", "red", b"garbage", 1, "e", 1)
    await put(tmp_path, [*envelopes("red", range(2)), bad, *envelopes("red", [2])])
    with started(tmp_path) as process:
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(3)]
        assert [decode_message(line).text for line in lines] == ["0", "1", "2"]
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0 and re.search(r"stopped .*dead=1 .*sent=3", log), log
    with started(tmp_path, "--redrive") as process:
        assert process.stdout is not None
        told = (await asyncio.to_thread(process.stdout.read)).decode()
    assert re.search(r"Z  red:9  not a transcription message\n1 dead letters\n1 put back\n$", told)


async def test_it_ends_when_nobody_reads_standard_output(tmp_path: Path) -> None:
    await put(tmp_path, envelopes("red", range(2)))
    with started(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        status, log = await asyncio.to_thread(ended, process)
        process.stdout = open(os.devnull, "rb")  # noqa: SIM115
    assert status == 1 and "nobody reads standard output any more" in log
    async with LocalQueue(tmp_path / QUEUE_FILE) as queue:
        assert await queue.outbox_size() == 2


async def test_a_class_of_the_user_s_takes_what_is_brought(tmp_path: Path) -> None:
    """It is found beside where the command is given."""
    (tmp_path / "ours.py").write_text(SINK)
    with started(tmp_path, "--sink", "ours:Mine", "--listen", "127.0.0.1:0") as process:
        assert process.stderr is not None
        line = (await asyncio.to_thread(process.stderr.readline)).decode()
        address = re.search(r"http://[\d.]+:\d+", line)
        assert address is not None, line
        async with aiohttp.ClientSession() as client:
            body = envelopes("red", [7])[0].body
            async with client.post(f"{address[0]}/dispatch", data=body) as response:
                assert (await response.json())["dispatched"] == 1
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    assert (tmp_path / "mine.txt").read_text() == "7\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--source", "redis"], "dispatch_redis_url=''"),
        (["--source", "redis", "--dispatch-redis-url", "nonsense"], "dispatch_redis_url='***'"),
        (["--source", "sqs"], "dispatch_sqs_url=''"),
        (["--set", "dispatch_local=off"], "the gateway fills no queue"),
        (["--sink", "jsonl"], "--path=''"),
        (["--sink", "webhook"], "--url=''"),
        (["--sink", "file"], "stdout, jsonl, webhook or module:attribute"),
        (["--sink", "no.such.module:Sink"], "No module named"),
        (["--sink", "json:JSONDecoder"], "no method dispatch"),
        (["--listen", "8080"], "write HOST:PORT"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["dispatcher", "--data-dir", str(tmp_path), *arguments]) == 2
    error = capfd.readouterr().err
    assert told in error and error.count("\n") == 1
