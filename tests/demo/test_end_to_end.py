"""The commands against the gateway they start themselves, as a person runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.demo.gateway import HOST, GatewayFailed, running
from edge.demo.speech import BECKETT, demo_recordings
from edge.demo.wer import compare

EDGESCRIBE = (sys.executable, "-m", "edge.cli")


def edgescribe(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGESCRIBE, *words], capture_output=True, text=True, timeout=50, check=False
    )


def test_a_wav_file_becomes_text_with_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever recognizer the gateways of this machine prefer."""
    monkeypatch.setenv("PROVIDERS_PRIORITY", "openai")
    done = edgescribe("transcribe", str(demo_recordings()[1].path), "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    transcript = json.loads(done.stdout)
    assert compare(BECKETT, transcript["text"]).rate <= 0.25
    times = [(each["start_ms"], each["end_ms"]) for each in transcript["segments"]]
    assert times == sorted(times) and all(0 <= start < end <= 11_000 for start, end in times)


def test_an_unusable_file_is_one_line(tmp_path: Path) -> None:
    done = edgescribe("transcribe", str(tmp_path / "none.wav"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "none.wav cannot be read" in done.stderr


async def test_a_gateway_is_ready_counts_and_stops() -> None:
    async with running(workers=1) as gateway:
        counters = await gateway.metrics()
        assert counters["otp_client_audio_chunks_total"] == 0
        assert gateway.pid in gateway.pids()
        assert (gateway.cpu_s() or 0) > 0
    assert gateway.exit_status == 0


async def test_a_gateway_that_cannot_start_shows_its_last_words() -> None:
    with pytest.raises(GatewayFailed, match="the gateway stopped with status") as caught:
        async with running(workers=1, arguments=("--set", "no_such_setting=1")):
            pass
    assert "no_such_setting" in caught.value.log


async def test_a_gateway_of_its_own_reads_no_settings_file(tmp_path: Path) -> None:
    broken = tmp_path / "edgescribe.toml"
    broken.write_text("no settings")
    environment = {**os.environ, "EDGESCRIBE_CONFIG": str(broken)}
    async with running(workers=1, environment=environment) as gateway:
        pass
    assert gateway.exit_status == 0


async def test_what_goes_wrong_inside_stops_the_gateway_too() -> None:
    with pytest.raises(RuntimeError, match="inside"):
        async with running(workers=1) as gateway:
            raise RuntimeError("inside")
    assert gateway.exit_status == 0


@pytest.fixture
def foreground() -> Iterator[None]:
    """Processes started meanwhile hear Ctrl-C, even when these tests are a job that ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def background() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C, as the jobs of a script do."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_interrupted_demo_leaves_no_gateway_behind(number: signal.Signals) -> None:
    await interrupt_demo(number)


@pytest.mark.usefixtures("background")
async def test_a_demo_in_the_background_still_obeys_sigterm() -> None:
    await interrupt_demo(signal.SIGTERM)


async def interrupt_demo(number: signal.Signals) -> None:
    """Start a demo, interrupt it once its gateway runs, and see both end."""
    demo = await asyncio.create_subprocess_exec(
        *EDGESCRIBE, "demo", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert demo.stdout is not None
        line = (await demo.stdout.readline()).decode()
        port = int(line.partition(f"{HOST}:")[2].partition(",")[0])
        demo.send_signal(number)
        async with asyncio.timeout(40):
            await demo.communicate()
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.communicate()
    assert demo.returncode == 130
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0
