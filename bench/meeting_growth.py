"""What a chunk and an utterance write to disk, early in a meeting and late.

    python -m bench.meeting_growth [--late 10000] [--over 500] [--json]

A recorder sends chunks as fast as they are acked, to a gateway of one worker with the file store:
first with a recognizer that says nothing, then with a stand-in for Fun-ASR that ends ten sentences
a second. Counted is what the worker hands to ``write`` (Linux, ``/proc/<pid>/io``): objects, the
log, its checkpoints, and the 200 bytes of an ack; what the stand-in gets is taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvloop
from websockets.asyncio.server import ServerConnection, serve

from edge.demo.gateway import HOST, GatewayProcess, running
from edge.demo.recorder import CHUNK_BYTES, Recorder, connect
from edge.demo.rest import Meeting

EARLY = 10
MOST_GROWTH = 1.1
SENTENCES_PER_S = 10
UNACKED = 8
HEARD_WITHIN_S = 120.0
_CHUNK = bytes(CHUNK_BYTES)


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
    """Without the tenth of a chunk it lasts."""


class StandIn:
    """Fun-ASR's part: whatever the sound, a sentence ends every 100 ms."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.port = 0

    async def __call__(self, socket: ServerConnection) -> None:
        task_id, heard, sentences = "", 0, 0
        async for message in socket:
            self.received_bytes += len(message)
            if isinstance(message, bytes):
                heard += len(message)
                while (sentences + 1) * CHUNK_BYTES <= heard * SENTENCES_PER_S:
                    await socket.send(_sentence(task_id, sentences))
                    sentences += 1
                continue
            header = json.loads(message)["header"]
            task_id, is_start = header["task_id"], header["action"] == "run-task"
            event = "task-started" if is_start else "task-finished"
            await socket.send(_event(task_id, event, {}))


def _sentence(task_id: str, number: int) -> str:
    length_ms = 1000 // SENTENCES_PER_S
    sentence = {
        "sentence_id": number + 1,
        "begin_time": length_ms * number,
        "end_time": length_ms * (number + 1),
        "text": f"number {number}",
        "heartbeat": False,
        "sentence_end": True,
        "words": [],
    }
    return _event(task_id, "result-generated", {"output": {"sentence": sentence}})


def _event(task_id: str, event: str, payload: object) -> str:
    header = {"task_id": task_id, "event": event, "attributes": {}}
    return json.dumps({"header": header, "payload": payload})


class Worker:
    """A gateway's only worker, and what it writes."""

    def __init__(self, gateway: GatewayProcess, provider: str, stand_in: StandIn) -> None:
        self.address = gateway.address
        self.provider = provider
        self._pid = next(
            pid
            for pid in gateway.pids()
            if b"SANIC_WORKER_NAME=Sanic-Server" in Path(f"/proc/{pid}/environ").read_bytes()
        )
        self._stand_in = stand_in

    def written_bytes(self) -> int:
        """All so far, less what the stand-in got."""
        fields = dict(
            line.split(": ") for line in Path(f"/proc/{self._pid}/io").read_text().splitlines()
        )
        return int(fields["wchar"]) - self._stand_in.received_bytes

    async def per_chunk(self, marks: Sequence[int]) -> list[float]:
        """Send chunks up to the last mark; bytes written for one, from each mark to the next."""
        written: list[int] = []
        async with connect(
            self.address,
            session_id=f"long-{self.provider}",
            role="students",
            query={"provider": self.provider},
        ) as recorder:
            await recorder.hello()
            for mark in marks:
                while recorder.last_seq < mark:
                    await recorder.room(UNACKED)
                    await recorder.chunk(_CHUNK)
                await recorder.all_acked()
                await self._heard(recorder)
                written.append(self.written_bytes())
        return [
            (written[at + 1] - written[at]) / (marks[at + 1] - marks[at])
            for at in range(len(marks) - 1)
        ]

    async def _heard(self, recorder: Recorder) -> None:
        """Wait until every sentence of the audio is an utterance."""
        if self.provider == "dummy":
            return
        meeting = Meeting(f"http://{self.address}", recorder.session_id)
        wanted = recorder.last_seq * SENTENCES_PER_S
        async with asyncio.timeout(HEARD_WITHIN_S):
            while (
                await asyncio.to_thread(meeting.utterances, recorder.role, limit=1)
            ).count < wanted:
                await asyncio.sleep(0.1)


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
            yield Worker(gateway, provider, stand_in)


async def measure(late: int, over: int) -> Growth:
    """Run both meetings, one after the other."""
    async with worker_of("dummy") as worker:
        early, _, later = await worker.per_chunk((EARLY, EARLY + over, late, late + over))
    chunk = Written(over=over, early_bytes=early, late_bytes=later)
    seconds = [-(-each // SENTENCES_PER_S) for each in (EARLY, EARLY + over, late, late + over)]
    async with worker_of("funasr") as worker:
        early, _, later = await worker.per_chunk(seconds)
    utterance = Written(
        over=over,
        early_bytes=(early - chunk.early_bytes) / SENTENCES_PER_S,
        late_bytes=(later - chunk.late_bytes) / SENTENCES_PER_S,
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
    parser.add_argument("--over", type=int, default=500, help="default %(default)s")
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
