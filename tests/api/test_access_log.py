"""The access log has one line for each request and each WebSocket, and no secret."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.server import Server, running, wait_until

SECRET = "sesame-open"


def entries(server: Server, event: str, path: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event and line["path"] == path]


async def test_every_request_and_every_websocket_has_its_line_and_no_secret() -> None:
    arguments = ("--workers", "1", "--set", "access_log=true", "--set", "log_format=json")
    with running(*arguments) as server:
        get = lambda *target: asyncio.to_thread(server.get, *target)  # noqa: E731
        health = await get(f"/health?token={SECRET}")
        await get("/status")
        await get("/status", "HEAD")
        await get(f"/v1/sessions/none/export?token={SECRET}&format=txt")
        await get("/somewhere/sk-0123456789abcdef")
        url = f"{server.transcribe_url}&token={SECRET}&sessionId=one"
        async with connect(url, compression=None) as client:
            greeting = await client.recv()
            await client.send("{}")
            await client.close(4000)
        try:
            async with connect(f"{server.transcribe_url}&token={SECRET}&encoding=wrong"):
                raise AssertionError("it was taken")
        except InvalidStatus as refused:
            assert refused.response.status_code == 400
        wait_until(lambda: bool(entries(server, "websocket", "/transcribe")), "the socket's line")
        wait_until(lambda: bool(entries(server, "request", "/transcribe")), "the refused one's")

        (answered,) = entries(server, "request", "/health")
        assert answered["status"] == health.status == 426
        assert answered["bytes"] == len(health.body)
        assert answered["method"] == "GET" and answered["duration_ms"] >= 0
        assert answered["remote"].startswith("127.0.0.1:")
        status, head = entries(server, "request", "/status")[-2:]
        assert status["bytes"] > 20 and (head["method"], head["bytes"]) == ("HEAD", 0)
        (missing,) = entries(server, "request", "/v1/sessions/none/export")
        assert missing["status"] == 404
        assert entries(server, "request", "/somewhere/***")
        (socket,) = entries(server, "websocket", "/transcribe")
        assert (socket["close_code"], socket["closed_by"]) == (4000, "client")
        assert socket["bytes_in"] > 2 and socket["bytes_out"] >= len(greeting)
        (refusal,) = entries(server, "request", "/transcribe")
        assert refusal["status"] == 400
        assert SECRET not in server.log
