"""A meeting's ingest in a few lines, for the clients of this room: it stores, acks and counts."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from websockets.asyncio.server import Request, Response, ServerConnection, serve


class Meeting:
    """One role's ingest; answers ``GET …/state``, too."""

    def __init__(self, last_seq: int = 0) -> None:
        self.frames: list[dict[str, object]] = []
        self.paths: list[str] = []
        self.chunks: dict[int, bytes] = {}
        self.last_seq = last_seq
        self.lost: set[int] = set()
        """Numbers that are acked and then forgotten."""
        self.refused: dict[int, str] = {}
        """Numbers that are answered with an error."""
        self.silent: set[str] = set()
        """Types of frames that get no answer."""
        self.close_code = 1000

    def names(self) -> list[object]:
        return [frame["type"] for frame in self.frames]

    def stored(self) -> dict[str, object]:
        return {
            "type": "status",
            "last_seq": self.last_seq,
            "received_chunks": len(self.chunks),
            "missing_chunks": 0,
            "bytes_stored": sum(map(len, self.chunks.values())),
        }

    async def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        async for data in socket:
            frame = json.loads(data)
            self.frames.append(frame)
            if frame["type"] in self.silent:
                continue
            for answer in self.answers(frame):
                await socket.send(json.dumps(answer))
            if frame["type"] == "close":
                await socket.close(self.close_code, frame["reason"])

    def answers(self, frame: dict[str, object]) -> list[dict[str, object]]:
        match frame["type"]:
            case "hello":
                return [{"type": "ready", "ingest": self.stored()}]
            case "status":
                return [self.stored()]
            case "capture_status":
                return [{"type": "capture_status_ack", "payload": frame["payload"]}]
            case "close":
                last = {"type": "transcript", "text": "the last word", "is_final": True}
                pushed = (
                    [{**last, "start_ms": 1500}] if "transcripts=true" in self.paths[-1] else []
                )
                return [*pushed, {"type": "closing"}]
        return [self.take(frame)]

    def take(self, frame: dict[str, object]) -> dict[str, object]:
        seq, body = frame["seq"], frame["content_b64"]
        assert isinstance(seq, int) and isinstance(body, str)
        if seq in self.refused:
            return {"type": "error", "detail": self.refused[seq], "code": "object_store"}
        if seq not in self.lost:
            self.chunks[seq] = b64decode(body)
        self.last_seq = max(self.last_seq, seq)
        return {"type": "ack", "seq": seq, "status": "stored", "missing_count": 0}

    def plain(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request that is no upgrade."""
        if "Upgrade" in request.headers:
            return None
        state = {"session_id": "m1", "ingest": self.stored(), "ingest_by_stream": {}}
        return connection.respond(HTTPStatus.OK, json.dumps(state))


@asynccontextmanager
async def serving(meeting: Meeting) -> AsyncIterator[str]:
    """Serve a meeting; gives the address ``host:port``."""
    async with serve(
        meeting, "127.0.0.1", 0, ping_interval=None, process_request=meeting.plain
    ) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
