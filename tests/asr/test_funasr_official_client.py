"""The official ``dashscope`` client vouches for the fake endpoint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edge.asr.funasr_events import finish_task, parameters, run_task
from tests.asr.fakes.common import Fault
from tests.asr.fakes.funasr_endpoint import KEY, RATE_HZ, FakeFunASR
from tests.asr.support.tones import sentence, silence
from tests.support.foreign import foreign_python, output_of

SCRIPT = Path(__file__).parent / "support" / "dashscope_client.py"
REQUIREMENTS = ("dashscope>=1.25",)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> Path:
    """The interpreter that has the official client."""
    cache = request.config.cache
    assert cache is not None
    return await asyncio.to_thread(foreign_python, cache, "dashscope", REQUIREMENTS)


async def recognize(
    client: Path, folder: Path, endpoint: FakeFunASR, speech: bytes, key: str = KEY
) -> dict[str, Any]:
    """What the official client tells of this speech."""
    path = folder / "speech.pcm"
    path.write_bytes(speech)
    output = await output_of(str(client), str(SCRIPT), endpoint.address, key, str(path), "3200")
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


async def test_the_official_client_is_served_by_the_fake(client: Path, tmp_path: Path) -> None:
    """Interims, finals with times and usage, heartbeats it skips, and the end of the task."""
    pause = silence(6000, RATE_HZ)
    speech = sentence("alpha bravo", RATE_HZ) + pause + sentence("charlie", RATE_HZ)
    async with FakeFunASR() as endpoint:
        told = await recognize(client, tmp_path, endpoint, speech)
        (task,) = endpoint.tasks
        heard = endpoint.connections[0]
        sent = endpoint.instructions

    assert told["errors"] == [] and told["completed"] == 1
    finals = [result for result in told["results"] if result[1]]
    assert finals == [["alpha bravo", True, 1], ["charlie", True, 2]]
    assert ["alpha", False, 1] in told["results"]
    assert all(result[0] for result in told["results"]), "heartbeats are no results to it"
    (first_begin, first_end), (second_begin, second_end) = told["times"]
    assert abs(first_begin) <= 40 and abs(first_end - 1200) <= 40
    assert abs(second_begin - 7200) <= 40 and abs(second_end - 7800) <= 40
    assert all(usage["duration"] >= 1 for usage in told["usages"])
    assert bytes(task.audio) == speech
    assert heard.texts == ["run-task", "finish-task"] and not heard.violations
    ours = run_task(task.task_id, "fun-asr-realtime", parameters(None)), finish_task(task.task_id)
    assert sent == [json.loads(message) for message in ours], "we say what it says"


async def test_the_official_client_understands_how_the_fake_refuses(
    client: Path, tmp_path: Path
) -> None:
    speech = sentence("alpha", RATE_HZ)
    faults = [Fault(), Fault(after_ms=200, then="error", error={"error_code": "Throttling"})]
    async with FakeFunASR(faults=faults) as endpoint:
        wrong_key = await recognize(client, tmp_path, endpoint, speech, key="sk-wrong")
        failed = await recognize(client, tmp_path, endpoint, speech)
    assert wrong_key["errors"][0][0] == 401
    assert failed["errors"][0][1] == "Throttling"
    assert (wrong_key["completed"], failed["completed"]) == (0, 0)
