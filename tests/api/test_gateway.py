"""Sessions over HTTP at a running gateway of two workers, beside another writer of its store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from edge.errors import SessionDeleted
from edge.session.entries import FinalEntry, encode_entry
from edge.session.stability import Snapshot
from edge.session.stability_share import DRAINED, SCOPE, WORKERS
from edge.session.store.interface import Draft, SessionStore, now_ms
from edge.session.store.opening import open_store
from edge.session.store.presence import Presence, appear, encode_presence
from tests.support.server import HOST, Server, running, wait_until


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "sessions.db"


@pytest.fixture(scope="module")
def server(database: Path) -> Iterator[Server]:
    dummy = ("--set", "enable_dummy_provider=true")
    with running("--workers", "2", "--set", f"store={database}", *dummy) as server:
        yield server


@pytest.fixture
async def store(server: Server, database: Path) -> AsyncIterator[SessionStore]:
    async with open_store(str(database)) as opened:
        yield opened


def final(number: int, text: str = "said") -> Draft:
    entry = FinalEntry(
        speaker="ann",
        turn=number,
        text=text,
        start_ms=number * 3000,
        end_ms=number * 3000 + 2000,
        timestamp_unix_ms=1_700_000_000_000,
        item_id=str(number),
        provider="dummy",
    )
    return Draft("final", encode_entry(entry))


async def write(store: SessionStore, session: str, count: int = 1, text: str = "said") -> None:
    grant = await store.open_track(session, "ann")
    for first in range(0, count, 1000):
        await store.append(grant, [final(n, text) for n in range(first, min(count, first + 1000))])


async def get(server: Server, target: str, method: str = "GET") -> tuple[int, Any]:
    answer = await asyncio.to_thread(server.get, target, method)
    return answer.status, json.loads(answer.body) if answer.body else None


async def test_sessions_are_listed_by_prefix_and_page(server: Server, store: SessionStore) -> None:
    names = ["list", "list/a", "list/b", "list/é", "other"]
    for name in names:
        await write(store, name)
    status, body = await get(server, "/v1/sessions?prefix=list&limit=3")
    assert status == 200
    assert [each["session_id"] for each in body["sessions"]] == names[:3]
    assert body["sessions"][0]["head"] == 1 and body["sessions"][0]["created_at"].endswith("Z")
    assert body["next"] == "list/b"
    status, body = await get(server, "/v1/sessions?prefix=list&limit=3&after=list/b")
    assert ([each["session_id"] for each in body["sessions"]], body["next"]) == (["list/é"], None)
    status, body = await get(server, "/v1/sessions?prefix=nobody")
    assert (status, body) == (200, {"sessions": [], "next": None})


async def test_one_session_tells_where_it_stands_and_who_is_there(
    server: Server, store: SessionStore
) -> None:
    name = "room / 1 é"
    await write(store, name, 3)
    presence = Presence(role="speaker", speaker="ann", since_unix_ms=now_ms())
    await appear(store, name, "c1", encode_presence(presence))
    await appear(store, name, "c2", b"of another make")
    status, body = await get(server, f"/v1/sessions/{quote(name, safe='')}")
    head = await store.head(name)
    assert head is not None
    assert status == 200
    assert (body["session_id"], body["epoch"], body["tail"], body["head"]) == (
        name,
        head.epoch,
        1,
        3,
    )
    assert body["tracks"] == ["ann"]
    (connection,) = body["connections"]
    assert (connection["connection"], connection["role"], connection["speaker"]) == (
        "c1",
        "speaker",
        "ann",
    )


async def test_what_is_asked_for_is_not_made(server: Server, store: SessionStore) -> None:
    for target in ("/v1/sessions/nobody", "/v1/sessions/nobody/export?format=srt"):
        status, body = await get(server, target)
        assert (status, body["code"]) == (404, "no_session")
    assert (await get(server, "/v1/sessions/nobody", "DELETE"))[0] == 404
    assert await store.detail("nobody") is None


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("srt", "application/x-subrip; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
        ("txt", "text/plain; charset=utf-8"),
        ("json", "application/json; charset=utf-8"),
    ],
)
async def test_a_long_log_is_exported_whole(
    server: Server, store: SessionStore, kind: str, content_type: str
) -> None:
    if await store.head("long") is None:
        await write(store, "long", 2500)
    answer = await asyncio.to_thread(server.get, f"/v1/sessions/long/export?format={kind}")
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert answer.headers["content-disposition"] == f'attachment; filename="long.{kind}"'
    assert answer.body.count(b"said") == 2500
    if kind == "json":
        assert len(json.loads(answer.body)["entries"]) == 2500
    head = await asyncio.to_thread(server.get, f"/v1/sessions/long/export?format={kind}", "HEAD")
    assert (head.status, head.headers["content-type"], head.body) == (200, content_type, b"")
    assert "content-length" not in head.headers


async def test_an_old_client_is_told_that_it_cannot_have_an_export(
    server: Server, store: SessionStore
) -> None:
    await write(store, "old")
    request = b"GET /v1/sessions/old/export HTTP/1.0\r\n\r\n"
    assert b"505" in (await asyncio.to_thread(server.exchange, request)).split(b"\r\n")[0]


async def test_a_format_that_is_not_there_is_refused_by_name(
    server: Server, store: SessionStore
) -> None:
    await write(store, "formats")
    status, body = await get(server, "/v1/sessions/formats/export?format=docx")
    assert (status, body["code"]) == (400, "bad_query")
    assert body["detail"] == "format='docx' cannot be used: one of srt, vtt, txt, json, in any case"


async def test_a_deleted_session_is_gone_and_stays_gone(
    server: Server, store: SessionStore
) -> None:
    await write(store, "doomed")
    grant = await store.open_track("doomed", "ann")
    assert await get(server, "/v1/sessions/doomed", "DELETE") == (204, None)
    with pytest.raises(SessionDeleted):
        await store.append(grant, [final(2)])
    for method in ("GET", "DELETE"):
        assert (await get(server, "/v1/sessions/doomed", method))[0] == 404


async def test_whoever_is_in_a_deleted_session_is_sent_away(
    server: Server, store: SessionStore
) -> None:
    speaker = f"{server.transcribe_url}&provider=dummy&sessionId=left"
    async with connect(speaker) as media, connect(f"{speaker}2") as other:
        media_format = {"encoding": "opus", "sampleRate": 48000, "channels": 2}
        for client in (media, other):
            start = {"event": "start", "start": {"tag": "ann", "mediaFormat": media_format}}
            await client.send(json.dumps(start))
        async with asyncio.timeout(10):
            while not ((found := await store.detail("left")) and "ann" in found.tracks):
                await asyncio.sleep(0.02)
        assert (await get(server, "/v1/sessions/left", "DELETE"))[0] == 204
        async with asyncio.timeout(10):
            await media.wait_closed()
        assert media.close_code == 4004
        await other.ping()


async def test_refusals_have_one_shape(server: Server) -> None:
    for target, method, status, code in (
        ("/v1/nothing", "GET", 404, "not_found"),
        ("/v1/sessions/%ff", "GET", 400, "bad_session"),
        ("/v1/sessions/a%00b/export", "GET", 400, "bad_session"),
        ("/v1/sessions?limit=many", "GET", 400, "bad_query"),
        ("/v1/sessions", "POST", 405, "method_not_allowed"),
        ("/sessions/metrics", "DELETE", 405, "method_not_allowed"),
    ):
        answer = await asyncio.to_thread(server.get, target, method)
        assert answer.status == status, target
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        body = json.loads(answer.body)
        assert set(body) == {"detail", "code"} and body["code"] == code
    assert answer.headers["allow"] == "GET, HEAD"


async def test_bodies_that_nobody_asked_for_cost_nothing(server: Server) -> None:
    body = b"x" * 5000
    request = (
        b"DELETE /v1/sessions/nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + body
    )
    last = b"GET /v1/sessions/nobody HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await asyncio.to_thread(server.exchange, request + last)
    assert answer.count(b"HTTP/1.1 404") == 2


async def test_a_reader_that_goes_away_in_the_middle_costs_nothing(
    server: Server, store: SessionStore
) -> None:
    if await store.head("long") is None:
        await write(store, "long", 2500)
    for _ in range(20):
        with socket.create_connection((HOST, server.port)) as connection:
            connection.sendall(b"GET /v1/sessions/long/export HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.to_thread(connection.recv, 100)
    status, _ = await get(server, "/v1/sessions/long/export")
    assert status == 200


async def test_an_export_that_cannot_be_finished_is_cut_off(
    server: Server, store: SessionStore
) -> None:
    await write(store, "cut", 8000, "said " * 400)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((HOST, server.port))
        connection.sendall(b"GET /v1/sessions/cut/export HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await asyncio.to_thread(connection.recv, 1000)
        assert received.startswith(b"HTTP/1.1 200")
        assert (await get(server, "/v1/sessions/cut", "DELETE"))[0] == 204

        def rest() -> bytes:
            last = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(1 << 20):
                    last = (last + part)[-100:]
            return last

        assert b"\r\n0\r\n" not in await asyncio.to_thread(rest)


async def test_a_stop_says_goodbye(tmp_path: Path) -> None:
    database = tmp_path / "sessions.db"
    with running("--workers", "1", "--set", f"store={database}") as server:
        async with connect(server.transcribe_url + "&sessionId=back") as client:
            server.process.terminate()
            await client.wait_closed()
        await asyncio.to_thread(server.process.wait, 20)
    async with open_store(str(database)) as store:
        (record,) = await store.records(SCOPE, WORKERS)
        snapshot = msgspec.msgpack.decode(record.body, type=Snapshot)
        (drained,) = await store.records(SCOPE, DRAINED)
    assert snapshot.is_stopped and not snapshot.ages
    assert [tally.drained for tally in snapshot.tallies["5m"]] == [1]
    assert len(msgspec.msgpack.decode(drained.body)) == 1


async def test_a_head_leaves_the_connection_as_it_was(server: Server, store: SessionStore) -> None:
    await write(store, "head")
    head = b"HEAD /v1/sessions/head/export HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1/sessions/head HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await asyncio.to_thread(server.exchange, head + last)
    assert answer.count(b"HTTP/1.1 200") == 2 and b'"session_id":"head"' in answer


def test_nothing_of_all_this_is_an_error_of_the_gateway(server: Server) -> None:
    assert "Traceback" not in server.log and "[error" not in server.log


async def test_the_stability_of_connections_is_that_of_all_workers(server: Server) -> None:
    clients = [await connect(server.transcribe_url + "&sessionId=kept") for _ in range(3)]
    clients += [await connect(server.transcribe_url) for _ in range(21)]
    for client in clients[3:]:
        client.transport.abort()

    seen: dict[str, Any] = {}

    def all_is_known() -> bool:
        seen.update(json.loads(server.get("/sessions/metrics").body))
        rate = seen["windows"]["1h"]["disconnection_rate"]
        return bool(seen["workers"] == 2 and rate["samples"] >= 24 and rate["value"] >= 0.8)

    await asyncio.to_thread(wait_until, all_is_known, "all workers are heard of", within_s=30)
    assert seen["is_complete"]
    window = seen["windows"]["1h"]
    assert window["disconnection_rate"]["verdict"] == "bad"
    assert window["error_rate"]["value"] == 0.0 and window["error_rate"]["verdict"] == "good"
    assert window["reconnection_time"]["verdict"] == "good"

    def gauges() -> dict[tuple[str, str, str], float]:
        families = text_string_to_metric_families(server.get("/metrics").body.decode())
        return {
            (family.name, sample.labels["metric"], sample.labels["window"]): sample.value
            for family in families
            if family.name.startswith("edgescribe_session_stability")
            for sample in family.samples
        }

    bad = ("edgescribe_session_stability_verdict", "disconnection_rate", "5m")
    await asyncio.to_thread(wait_until, lambda: gauges()[bad] == 3, "the verdict is in the metrics")
    assert gauges()["edgescribe_session_stability", "error_rate", "24h"] == 0
    for client in clients[:3]:
        await client.close()
