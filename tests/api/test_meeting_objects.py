"""Meetings over HTTP while the object store is away: what still is answered, and what says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.meeting.book import INGEST, Book
from edge.meeting.records import Ingest
from edge.session.store.opening import open_store
from tests.support.server import HOST, Server, free_port, running

AWAY = (
    *("--set", "objects=s3://bucket", "--set", "spool_max_bytes=0"),
    *("--set", "s3_access_key=key", "--set", "s3_secret_key=secret"),
    *("--set", "objects_deadline_s=0.5"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    endpoint = ("--set", f"s3_endpoint=http://{HOST}:{free_port()}")
    dummy = ("--set", "enable_dummy_provider=true", "--set", "providers_priority=dummy")
    with running("--workers", "1", *AWAY, *endpoint, *dummy) as server:
        yield server


async def test_what_needs_objects_asks_for_patience(server: Server) -> None:
    async with open_store(str(Path(server.data_dir) / "sessions.db")) as store:
        ingest = Ingest(last_seq=3, received_chunks=3)
        await Book(store).change("away", INGEST["mixed"], lambda _: ingest)
    for method, target in (
        ("GET", "/v1/sessions/away/result"),
        ("GET", "/v1/sessions/away/audio"),
        ("POST", "/v1/sessions/away/finalize"),
    ):
        body = b"{}" if method == "POST" else None
        answer = await asyncio.to_thread(server.get, target, method, body=body, timeout_s=20)
        assert answer.status == 503, target
        assert json.loads(answer.body)["code"] == "objects_unavailable"
        assert answer.headers["retry-after"] == "2"


async def test_what_needs_none_is_answered(server: Server) -> None:
    for target in ("state", "events", "utterances", "export"):
        answer = await asyncio.to_thread(server.get, f"/v1/sessions/away/{target}")
        assert answer.status == 200, target
    answer = await asyncio.to_thread(server.get, "/v1/sessions/away/asr-run", "POST", timeout_s=20)
    run = json.loads(answer.body)
    assert (answer.status, run["generated"]) == (200, 0)
    assert run["last_error"], "w21: an error is told, nothing is lost"
    answer = await asyncio.to_thread(server.get, "/v1/sessions/away", "DELETE", timeout_s=20)
    assert answer.status == 204
    assert "Traceback" not in server.log and "secret" not in server.log
