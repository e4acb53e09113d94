"""What a chunk and an utterance write to disk, early in a meeting and late.

    python -m bench.meeting_growth [--late 10000] [--over 300] [--json]

A recorder streams to a gateway of one worker with the file store: first to a recognizer that says
nothing, as fast as chunks are acked, then to a stand-in for Fun-ASR, which ends a sentence with
each second of sound while it is counted, and fifty until then. Those that are counted are a quarter
of a second apart, so that each is stored by itself, as in a talk. Counted is what the worker hands
to ``write`` (Linux, ``/proc/<pid>/io``): objects, the log, its checkpoints, and some 200 bytes of
each ack and each pushed transcript; what the stand-in gets is taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, serve

from bench.load_bed import is_worker
from edge.demo.gateway import HOST, GatewayProcess, running
from edge.demo.recorder import CHUNK_BYTES, Recorder, ServerFrame, connect
from edge.demo.smoke import tone

EARLY = 10
MOST_GROWTH = 1.25
"""What the latencies of the last 200 utterances take in the role's record is not there at first."""
UNACKED = 8
FILL_PER_S = 50
FILL_S = 0.1
SPOKEN_WITHIN_S = 300.0
APART_S = 0.25
"""What nobody follows is stored five times a second."""
STILL_S = 1.5
_SECOND_MS = 1000
_CHUNK = tone(300)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes written for one, a mean of ``over``."""

    over: int
    early_bytes: float
    """From the tenth on."""
    late_bytes: float
    """From the one on that ``late`` says."""

    @property
    def growth(self) -> float:
        """How many times as much a late one takes."""
        return self.late_bytes / max(1.0, self.early_bytes)


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured."""

    late: int
    chunk: Written
    utterance: Written
    """Without the chunk it is in."""


class Mark(msgspec.Struct, frozen=True):
    """How far a meeting is."""

    written_bytes: int
    chunks: int
    utterances: int

    def per_utterance(self, before: Mark, chunk_bytes: float) -> float:
        """Bytes of one since another mark, without those of the chunks."""
        chunks_bytes = (self.chunks - before.chunks) * chunk_bytes
        utterances = self.utterances - before.utterances
        return (self.written_bytes - before.written_bytes - chunks_bytes) / utterances


class StandIn:
    """Fun-ASR's part: whatever the sound, sentences end at a steady pace."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.sentences_per_s = 1

    async def __call__(self, socket: ServerConnection) -> None:
        task_id, heard_ms, said_ms, number = "", 0.0, 0, 0
        async for message in socket:
            self.received_bytes += len(message)
            if isinstance(message, str):
                header = json.loads(message)["header"]
                task_id, is_start = header["task_id"], header["action"] == "run-task"
                event = "task-started" if is_start else "task-finished"
                heard_ms, said_ms, number = 0.0, 0, 0
                await socket.send(_event(task_id, event, {}))
                continue
            heard_ms += len(message) / (CHUNK_BYTES / _SECOND_MS)
            while said_ms + (length_ms := _SECOND_MS // self.sentences_per_s) <= heard_ms:
                number += 1
                await socket.send(_sentence(task_id, number, said_ms, said_ms + length_ms))
                said_ms += length_ms


def _sentence(task_id: str, number: int, begin_ms: int, end_ms: int) -> str:
    sentence = {
        "sentence_id": number,
        "begin_time": begin_ms,
        "end_time": end_ms,
        "text": f"this is what was said as number {number}",
        "heartbeat": False,
        "sentence_end": True,
        "words": [],
    }
    return _event(task_id, "result-generated", {"output": {"sentence": sentence}})


def _event(task_id: str, event: str, payload: object) -> str:
    header = {"task_id": task_id, "event": event, "attributes": {}}
    return json.dumps({"header": header, "payload": payload})


class Worker:
    """A gateway's only worker, what it writes, and a recorder of its only meeting."""

    def __init__(self, gateway: GatewayProcess, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.utterances = 0
        """Told so far."""
        self._address = gateway.address
        self._pid = next(pid for pid in gateway.pids() if is_worker(pid))

    def recorder(self, provider: str) -> AbstractAsyncContextManager[Recorder]:
        """The meeting's."""
        return connect(
            self._address,
            session_id="long",
            role="students",
            query={"provider": provider, "transcripts": "true"},
            on_frame=self._count,
        )

    def written_bytes(self) -> int:
        """All so far, less what the stand-in got."""
        fields = dict(
            line.split(": ") for line in Path(f"/proc/{self._pid}/io").read_text().splitlines()
        )
        return int(fields["wchar"]) - self.stand_in.received_bytes

    async def chunks(self, recorder: Recorder, until: int) -> int:
        """Send chunks up to a number; what is written when they are stored."""
        while recorder.last_seq < until:
            await recorder.room(UNACKED)
            await recorder.chunk(_CHUNK)
        await recorder.all_acked()
        return self.written_bytes()

    async def spoken(self, recorder: Recorder, count: int, per_s: int, apart_s: float) -> Mark:
        """Send chunks until there are so many more utterances, and all of them are stored."""
        self.stand_in.sentences_per_s = per_s
        until = self.utterances + count
        async with asyncio.timeout(SPOKEN_WITHIN_S):
            while self.utterances < until:
                recorder.check()
                await recorder.chunk(_CHUNK)
                await asyncio.sleep(apart_s)
        await recorder.all_acked()
        await asyncio.sleep(STILL_S)
        return Mark(self.written_bytes(), recorder.last_seq, self.utterances)

    def _count(self, frame: ServerFrame) -> None:
        self.utterances += frame.type == "transcript" and frame.is_final


@asynccontextmanager
async def worker_of(provider: str) -> AsyncIterator[Worker]:
    """A gateway of one worker that uses a recognizer."""
    stand_in = StandIn()
    async with serve(stand_in, HOST, 0, compression=None, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        environment = {
            **os.environ,
            "ENABLE_DUMMY_PROVIDER": "true",
            "PROVIDERS_PRIORITY": provider,
            "ALIYUN_DASHSCOPE_API_KEY": "bench",
            "ASR_WS_URL": f"ws://{HOST}:{port}/",
        }
        async with running(workers=1, environment=environment) as gateway:
            yield Worker(gateway, stand_in)


async def measure(late: int, over: int) -> Growth:
    """Run both meetings, one after the other."""
    marks = (EARLY, EARLY + over, late, late + over)
    async with worker_of("dummy") as worker, worker.recorder("dummy") as recorder:
        written = [await worker.chunks(recorder, mark) for mark in marks]
    early, later = ((written[at + 1] - written[at]) / over for at in (0, 2))
    chunk = Written(over=over, early_bytes=early, late_bytes=later)
    async with worker_of("funasr") as worker, worker.recorder("funasr") as recorder:
        said = [await worker.spoken(recorder, EARLY, 1, APART_S)]
        said.append(await worker.spoken(recorder, over, 1, APART_S))
        said.append(await worker.spoken(recorder, late - worker.utterances, FILL_PER_S, FILL_S))
        said.append(await worker.spoken(recorder, over, 1, APART_S))
    utterance = Written(
        over=over,
        early_bytes=said[1].per_utterance(said[0], chunk.early_bytes),
        late_bytes=said[3].per_utterance(said[2], chunk.late_bytes),
    )
    return Growth(late=late, chunk=chunk, utterance=utterance)


def table(growth: Growth) -> str:
    """The figures for a person."""
    return "\n".join(
        f"{f'bytes written for {what}':<32}{each.early_bytes:,.0f} at number {EARLY},"
        f" {each.late_bytes:,.0f} at {growth.late:,} ({each.growth:.2f} times;"
        f" means of {each.over:,}, limit {MOST_GROWTH:g} times)"
        for what, each in (("a chunk", growth.chunk), ("an utterance", growth.utterance))
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.meeting_growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--late", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--over", type=int, default=300, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    growth = uvloop.run(measure(args.late, args.over))
    print(msgspec.json.encode(growth).decode() if args.json else table(growth))
    grown = max(growth.chunk.growth, growth.utterance.growth)
    if grown > MOST_GROWTH:
        print(f"FAILED: late ones take {grown:.2f} times as much", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
