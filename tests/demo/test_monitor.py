"""``edgescribe monitor`` as a process, against gateways that are well and that are not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import sentence
from tests.demo.scripted import gateway as scripted
from tests.demo.scripted import result
from tests.ingest.support.media import client, gateway
from tests.support.server import COMMAND, clean_environment, edgescribe, free_port, wait_until

QUICK = {
    "MONITOR_INTERVAL_SECONDS": "0.2",
    "MONITOR_RETRY_DELAY_SECONDS": "0.1",
    "EDGESCRIBE_MONITOR_DEADLINE_S": "5",
    "MONITOR_PORT": "0",
}


@pytest.fixture
def sample(tmp_path: Path) -> str:
    path = tmp_path / "sample.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(sentence("alpha bravo", 48000))
    return str(path)


class Running:
    """A monitor that has said where it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.url = process.stdout.readline().split()[-1]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float | None:
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None


@asynccontextmanager
async def monitoring(**environment: str) -> AsyncIterator[Running]:
    """A monitor; SIGTERM must end it with status 0 at the end of the block."""
    process = subprocess.Popen(
        [*COMMAND, "monitor"],
        env=clean_environment({**QUICK, **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield await asyncio.to_thread(Running, process)
        process.terminate()
        _, log = await asyncio.to_thread(process.communicate, timeout=10)
        assert process.returncode == 0, log
        assert "Traceback" not in log
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


async def counts(monitor: Running, checks: int) -> None:
    def counted() -> bool:
        return (monitor.metric("edgescribe_monitor_checks_total") or 0) >= checks

    await asyncio.to_thread(wait_until, counted, f"{checks} checks", 20.0)


async def test_a_gateway_that_transcribes_is_healthy_at_each_check_in_a_new_session(
    sample: str,
) -> None:
    async with gateway(FakeOpenAI()) as (server, endpoint):
        url = f"ws://{server.address}/transcribe?sessionId=__SESSION_ID__"
        async with monitoring(MONITOR_URL=url, EDGESCRIBE_MONITOR_SAMPLE=sample) as monitor:
            await counts(monitor, 2)
            _, metrics = await asyncio.to_thread(monitor.get, "/metrics")
            for prefix in ("edgescribe_monitor", "opus_transcriber_proxy_monitor"):
                assert f"{prefix}_healthy 1.0" in metrics
                for name in ("last_check", "last_healthy"):
                    at_s = monitor.metric(f"{prefix}_{name}_timestamp_seconds")
                    assert at_s is not None and at_s > 1.7e9
            assert 0 < (monitor.metric("edgescribe_monitor_first_final_seconds") or 0) < 5
            assert monitor.get("/health") == (200, "OK")
            assert monitor.get("/elsewhere")[0] == 404
        assert len(endpoint.connections) >= 2
        assert "session=monitor-" in server.log


async def test_a_check_that_has_what_it_wants_before_the_end_ends_its_session(
    tmp_path: Path,
) -> None:
    """What is left to the grace period keeps a recognizer for so long, at every check."""
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(sentence("alpha", 48000) + bytes(96 * 20_000))
    async with gateway(FakeOpenAI()) as (server, _):
        url = f"ws://{server.address}/transcribe?sessionId=__SESSION_ID__"
        settings = {
            "MONITOR_URL": url,
            "EDGESCRIBE_MONITOR_SAMPLE": str(path),
            "EDGESCRIBE_MONITOR_SPEED": "1",
        }
        once = await asyncio.to_thread(edgescribe, "monitor", "--once", environment=settings)
        assert once.returncode == 0, once.stderr
        await asyncio.to_thread(
            wait_until, lambda: "session ended" in server.log, "the session's end", 5.0
        )


async def test_one_that_is_silent_is_unhealthy_after_a_retry_and_well_when_it_answers(
    sample: str,
) -> None:
    attempts: list[str] = []
    well = False

    async def recovering(socket: ServerConnection) -> None:
        assert socket.request is not None
        attempts.append(socket.request.path)
        async for message in socket:
            if json.loads(message)["event"] == "session-end":
                if well:
                    await socket.send(result("alpha"))
                return

    async with scripted(recovering) as address:
        url = f"ws://{address}/transcribe?sessionId=__SESSION_ID__"
        async with monitoring(MONITOR_URL=url, EDGESCRIBE_MONITOR_SAMPLE=sample) as monitor:
            await counts(monitor, 1)
            assert len(attempts) >= 2 and len(set(attempts)) == len(attempts)
            assert all("sessionId=monitor-" in path for path in attempts)
            assert monitor.metric("edgescribe_monitor_healthy") == 0
            assert monitor.metric("edgescribe_monitor_last_healthy_timestamp_seconds") == 0
            assert monitor.get("/health") == (200, "OK"), "the monitor itself is alive"
            well = True

            def healthy() -> bool:
                return monitor.metric("edgescribe_monitor_healthy") == 1

            await asyncio.to_thread(wait_until, healthy, "well again", 20.0)


async def test_once_says_by_its_status_what_is_wrong_in_one_line_each(sample: str) -> None:
    def once(**environment: str) -> subprocess.CompletedProcess[str]:
        settings = {**QUICK, "EDGESCRIBE_MONITOR_SAMPLE": sample, **environment}
        return edgescribe("monitor", "--once", environment=settings)

    nobody = await asyncio.to_thread(once, MONITOR_URL=f"ws://127.0.0.1:{free_port()}/transcribe")
    assert nobody.returncode == 1
    assert "connection refused" in nobody.stderr and "check failed" in nobody.stderr

    async def closing(socket: ServerConnection) -> None:
        assert socket.request is not None
        async for message in socket:
            if json.loads(message)["event"] == "session-end":
                break
        if socket.request.headers.get("X-Token") == "abc":
            await socket.send(result("alpha"))
            await socket.send(result("bravo"))
        else:
            await socket.close(1002, "Invalid provider: x")

    async with scripted(closing) as address:
        rejected = await asyncio.to_thread(once, MONITOR_URL=address)
        assert rejected.returncode == 1
        assert "0 of 1 finals came" in rejected.stderr and "1002" in rejected.stderr
        headers = {"MONITOR_HEADERS": '{"X-Token":"abc"}'}
        passed = await asyncio.to_thread(once, MONITOR_URL=address, **headers)
        assert (passed.returncode, "abc" in passed.stderr) == (0, False)
        few = await asyncio.to_thread(once, MONITOR_URL=address, MONITOR_MIN_FINALS="3", **headers)
        assert few.returncode == 1 and "2 of 3 finals came" in few.stderr


def test_what_it_cannot_work_with_is_named() -> None:
    without = edgescribe("monitor", environment=QUICK)
    assert without.returncode == 2 and "MONITOR_URL" in without.stderr
    missing = edgescribe(
        "monitor", "--monitor-sample", "none.wav", environment={**QUICK, "MONITOR_URL": "ws://x"}
    )
    assert missing.returncode == 1 and "none.wav cannot be read" in missing.stderr


async def test_a_recording_of_a_session_is_a_sample_too(tmp_path: Path) -> None:
    async with gateway(FakeOpenAI(), DUMP_WEBSOCKET_MESSAGES="true") as (server, _):
        async with client(server, "sendBack=true&sessionId=m1") as media:
            await media.say("a", "alpha")
            await media.send('{"event":"session-end"}')
            await media.closed()
        recording = server.data_dir / "dumps/m1/media.jsonl"
        await asyncio.to_thread(wait_until, recording.exists, "the recording")
        done = await asyncio.to_thread(
            edgescribe,
            "monitor",
            "--once",
            environment={
                **QUICK,
                "MONITOR_URL": server.transcribe_url,
                "EDGESCRIBE_MONITOR_SAMPLE": str(recording),
                "EDGESCRIBE_MONITOR_SPEED": "4",
            },
        )
        assert done.returncode == 0, done.stderr
