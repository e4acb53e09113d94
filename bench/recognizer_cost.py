"""What an OpenAI stream costs its worker: CPU per second of audio and memory per connection.

    python -m bench.recognizer_cost [--streams 100] [--seconds 5] [--supervised]

Each stream sends a 100 ms batch ten times a second to ``bench.load_upstream`` and gets its interims
and finals. ``--supervised`` puts a track and a supervisor around each and feeds Opus packets
instead, so that ordering, decoding and keeping for replay are in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from edge.asr.breaker import Breakers
from edge.asr.interface import StreamEvent, StreamRequest
from edge.asr.openai_realtime import OpenAIRecognizer, OpenAISettings
from edge.asr.settings import SupervisorSettings
from edge.asr.supervisor import Supervisor
from edge.asr.transcript import Transcript
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from edge.errors import RecognizerError
from tests.support.speech import speech_packets, two_cities_pcm

BATCH = two_cities_pcm()[:4800]
GROUPS = 10
"""Streams send in so many groups, spread over each interval."""


class Sink:
    """Takes transcripts."""

    def __init__(self) -> None:
        self.interims = 0
        self.finals = 0

    def interim(self, transcript: Transcript) -> None:
        self.interims += 1

    def final(self, transcript: Transcript) -> None:
        self.finals += 1

    def failed(self, error: RecognizerError) -> None:
        raise error


def private_kb() -> float:
    """Memory of this process alone."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("Private_"))


async def pace(
    streams: int, seconds: float, interval_s: float, send: Callable[[int, int], None]
) -> float:
    """Call ``send(stream, turn)`` for all streams each interval; CPU ms per stream-second."""
    turns = int(seconds / interval_s)
    started_s, cpu_s = time.monotonic(), time.process_time()
    for turn in range(turns):
        for group in range(GROUPS):
            for stream in range(group, streams, GROUPS):
                send(stream, turn)
            due_s = started_s + (turn + (group + 1) / GROUPS) * interval_s
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
    return (time.process_time() - cpu_s) * 1000 / (streams * turns * interval_s)


async def bare(recognizer: OpenAIRecognizer, streams: int, seconds: float) -> tuple[float, float]:
    events: list[StreamEvent] = []
    before_kb = private_kb()
    opened = [
        await recognizer.open(StreamRequest(track=f"tag-{number}"), events.append)
        for number in range(streams)
    ]
    await asyncio.sleep(0.5)
    gc.collect()
    kb = (private_kb() - before_kb) / streams
    cpu_ms = await pace(streams, seconds, 0.1, lambda stream, _: opened[stream].send(BATCH))
    assert len(events) > streams * seconds
    await asyncio.gather(*(stream.close() for stream in opened))
    return cpu_ms, kb


async def supervised(
    recognizer: OpenAIRecognizer, streams: int, seconds: float
) -> tuple[float, float]:
    packets = speech_packets(500)
    settings, sink = SupervisorSettings(), Sink()
    breakers = Breakers(settings)
    before_kb = private_kb()
    tracks = [AudioTrack(TrackSettings()) for _ in range(streams)]
    supervisors = [
        Supervisor(
            track, [recognizer], breakers, settings, StreamRequest(track=f"tag-{number}"), sink
        )
        for number, track in enumerate(tracks)
    ]
    for supervisor in supervisors:
        supervisor.start()
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.5)

    def send(stream: int, turn: int) -> None:
        packet = packets[turn % len(packets)]
        tracks[stream].packet(turn, turn * 960, packet, time.monotonic())

    cpu_ms = await pace(streams, seconds, 0.02, send)
    gc.collect()
    kb = (private_kb() - before_kb) / streams
    assert sink.interims > streams * seconds
    await asyncio.gather(*(supervisor.finish(5) for supervisor in supervisors))
    return cpu_ms, kb


async def measure(port: int, given: argparse.Namespace) -> None:
    url = f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription"
    recognizer = OpenAIRecognizer(
        OpenAISettings(openai_api_key="sk-bench", openai_realtime_url=url)
    )
    run = supervised if given.supervised else bare
    await run(recognizer, 10, 1)
    cpu_ms, kb = await run(recognizer, given.streams, given.seconds)
    print(f"{cpu_ms:.3f} ms CPU per stream-second, {kb:.1f} kB per stream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--supervised", action="store_true")
    given = parser.parse_args()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load_upstream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as upstream:
        assert upstream.stdout is not None and upstream.stdin is not None
        try:
            uvloop.run(measure(int(upstream.stdout.readline()), given))
        finally:
            upstream.stdin.close()


if __name__ == "__main__":
    main()
