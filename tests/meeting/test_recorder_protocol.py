"""The recorder's protocol as an old client knows it: every frame, through the door of a gateway."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.server import Server, running

CHUNK_BYTES = 32000
Answer = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "2") as server:
        yield server


@pytest.fixture
def session() -> str:
    return uuid4().hex


class Client:
    """One socket that asks and reads what is answered."""

    def __init__(self, socket: ClientConnection, session: str, role: str) -> None:
        self.socket = socket
        self.session = session
        self.role = role

    async def ask(self, frame: object) -> Answer:
        """The answer to a text frame."""
        await self.socket.send(json.dumps(frame))
        return await self.answer()

    async def answer(self) -> Answer:
        answer: Answer = json.loads(await asyncio.wait_for(self.socket.recv(), 10))
        return answer

    def described(self, seq: object, body: bytes = bytes(CHUNK_BYTES), **changes: object) -> Answer:
        """A chunk frame."""
        frame = {
            "type": "chunk",
            "stream_role": self.role,
            "meeting_id": self.session,
            "seq": seq,
            "timestamp_ms": 1770811454091,
            "sample_rate": 16000,
            "channels": 1,
            "format": "pcm_s16le",
            "content_b64": base64.b64encode(body).decode(),
            **changes,
        }
        return {name: value for name, value in frame.items() if value is not None}

    async def chunk(self, seq: object, body: bytes = bytes(CHUNK_BYTES), **ch: object) -> Answer:
        return await self.ask(self.described(seq, body, **ch))


@asynccontextmanager
async def connected(
    server: Server, session: str, role: str = "teacher", query: str = ""
) -> AsyncIterator[Client]:
    path = quote(session, safe="") + ("" if role == "mixed" else f"/{role}")
    async with connect(f"ws://{server.address}/v1/audio/ws/{path}{query}") as socket:
        yield Client(socket, session, role.strip().lower())


def counters(answer: Answer) -> tuple[int, int, int]:
    return answer["last_seq"], answer["missing_count"], answer["duplicate_count"]


async def test_the_table_of_the_protocol_as_amended(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        table: list[tuple[int, str, tuple[int, int, int]]] = [
            (1, "stored", (1, 0, 0)),
            (1, "duplicate", (1, 0, 1)),
            (5, "stored", (5, 3, 1)),
            (3, "stored", (5, 2, 1)),
        ]
        for seq, status, then in table:
            answer = await client.chunk(seq)
            assert (answer["type"], answer["seq"], answer["stream_role"]) == ("ack", seq, "teacher")
            assert (answer["status"], counters(answer)) == (status, then)
            key = f"sessions/{session}/chunks/teacher/{seq:08d}.pcm"
            assert answer.get("key") == (key if status == "stored" else None)
        other = await client.chunk(6, meeting_id="other")
        assert (other["type"], other["seq"]) == ("error", 6) and session in other["detail"]
        short = await client.chunk(6, bytes(100))
        assert (short["type"], short["seq"]) == ("error", 6)
        assert "32000" in short["detail"] and "100" in short["detail"]
        assert counters(await client.chunk(6)) == (6, 2, 1)
        status = await client.ask({"type": "status"})
        by_stream = status.pop("ingest_by_stream")
        assert status == by_stream["teacher"]
        assert (status["received_chunks"], status["bytes_stored"]) == (4, 4 * CHUNK_BYTES)
        assert set(status) == {
            *("type", "session_id", "stream_role", "meeting_id", "last_seq", "received_chunks"),
            *("duplicate_chunks", "missing_chunks", "bytes_stored", "started_at", "updated_at"),
        }
        assert (status["type"], by_stream["students"]["last_seq"]) == ("status", 0)


async def test_w20_a_late_chunk_fills_its_gap_and_errors_name_code_and_chunk(
    server: Server, session: str
) -> None:
    async with connected(server, session) as client:
        await client.chunk(1)
        await client.chunk(3)
        assert counters(await client.chunk(2)) == (3, 0, 0)
        refused = await client.chunk(4, sample_rate=8000)
        assert set(refused) == {"type", "detail", "code", "seq"} and refused["seq"] == 4


async def test_w22_a_chunk_far_ahead_poisons_nothing(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        await client.chunk(1)
        refused = await client.chunk(10**9)
        assert (refused["type"], refused["code"], refused["seq"]) == ("error", "seq_jump", 10**9)
        assert counters(await client.chunk(2)) == (2, 0, 0)


async def test_w23_binary_frames_and_a_short_last_chunk(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        for number, body, seq in [
            (1, bytes(CHUNK_BYTES), 1),
            (0x80000002, bytes(1000), 2),
        ]:
            await client.socket.send(struct.pack(">I", number) + body)
            answer = await client.answer()
            assert (answer["type"], answer["status"], answer["seq"]) == ("ack", "stored", seq)
        assert (await client.chunk(3, bytes(500)))["type"] == "error"
        assert (await client.chunk(3, bytes(500), final=True))["status"] == "stored"
        status = await client.ask({"type": "status"})
        assert status["bytes_stored"] == CHUNK_BYTES + 1500
        for bad in (b"", b"\0\0\0\4", bytes(4) + bytes(CHUNK_BYTES), struct.pack(">I", 4) + b"xy"):
            await client.socket.send(bad)
            assert (await client.answer())["type"] == "error"
        assert counters(await client.chunk(4)) == (4, 0, 0)


async def test_nothing_that_is_no_frame_closes_the_socket(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        deep = '{"type":"hello","teams_participants":' + "[" * 5000 + "]" * 5000 + "}"
        bad = ("null", "5", '"x"', "[]", "{", "", "{}", '{"type":"nonsense"}', '{"type":5}', deep)
        for text in bad:
            await client.socket.send(text)
            answer = await client.answer()
            assert answer["type"] == "error" and answer["detail"], text
            assert answer["code"] != "internal", text
        assert (await client.ask({"type": "ping"}))["type"] == "pong"


WRONG: list[dict[str, object]] = [
    {"meeting_id": None},
    {"meeting_id": ""},
    {"meeting_id": 5},
    {"seq": 0},
    {"seq": -1},
    {"seq": "1"},
    {"seq": 1.5},
    {"seq": True},
    {"seq": 10**30},
    {"timestamp_ms": None},
    {"timestamp_ms": 0},
    {"timestamp_ms": "1"},
    {"sample_rate": 8000},
    {"sample_rate": "16000"},
    {"channels": 2},
    {"format": "wav"},
    {"content_b64": ""},
    {"content_b64": 5},
    {"content_b64": "%%%"},
    {"content_b64": "é"},
    {"stream_role": "parents"},
    {"stream_role": "students"},
    {"final": "yes", "content_b64": "AAAA"},
]


async def test_what_is_wrong_in_a_chunk_changes_nothing(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        for wrong in WRONG:
            answer = await client.ask({**client.described(1), **wrong})
            assert answer["type"] == "error", wrong
        assert (await client.ask({"type": "status"}))["last_seq"] == 0
        assert (await client.ask(client.described(1, stream_role=None)))["status"] == "stored"
        assert (await client.chunk(1, content_b64="%%%"))["status"] == "duplicate"
        assert (await client.chunk(2.0, timestamp_ms=0.5))["status"] == "stored"


async def test_hello_is_answered_by_ready_with_what_is_stored(server: Server, session: str) -> None:
    async with connected(server, session, "students") as client:
        ready = await client.ask(
            {"type": "hello", "meeting_id": "x", "sample_rate": 8, "channels": 9, "format": "z"}
        )
        expected = {
            "type": "ready",
            "session_id": session,
            "stream_role": "students",
            "target_sample_rate": 16000,
            "target_channels": 1,
            "target_format": "pcm_s16le",
        }
        assert {name: ready[name] for name in expected} == expected
        assert set(ready) == {*expected, "ingest", "ingest_by_stream"}
        assert ready["ingest"] == ready["ingest_by_stream"]["students"]
        await client.chunk(1)
        await client.chunk(2)
        assert (await client.ask({"type": "hello"}))["ingest"]["last_seq"] == 2
        assert (await client.ask({"type": "hello", "stream_role": "teacher"}))["type"] == "error"
        assert (await client.ask({"type": "hello", "stream_role": 5}))["type"] == "error"
    async with connected(server, session, "students") as again:
        assert (await again.ask({"type": "hello"}))["ingest"]["last_seq"] == 2


async def test_hello_tells_who_is_expected_and_blanks_clear_nothing(
    server: Server, session: str
) -> None:
    people = ["Alice", "  ", "Bob ", {"name": " Carol ", "email": " c@x "}, {"name": ""}]
    people += [{"email": "z"}, 5, None, {"name": "Dan"}]  # type: ignore[list-item]
    async with connected(server, session) as client:
        hello: Answer = {"type": "hello", "interviewer_name": " Bill "}
        await client.ask({**hello, "teams_participants": people})
        for nothing in ("", "  ", None, 5):
            blank = {"type": "hello", "interviewer_name": nothing, "teams_participants": []}
            assert (await client.ask(blank))["type"] == "ready"
    state = json.loads(server.get(f"/v1/sessions/{session}/state").body)["state"]
    assert state["config"] == {"interviewer_name": "Bill", "teams_interviewer_name": "Bill"}
    roster = [(each["name"], each.get("email")) for each in state["roster"]]
    assert roster == [("Alice", None), ("Bob", None), ("Carol", "c@x"), ("Dan", None)]


async def test_capture_status_changes_what_it_names_and_mixed_follows(
    server: Server, session: str
) -> None:
    async with connected(server, session) as client:
        ack = await client.ask(
            {
                "type": "capture_status",
                "payload": {
                    "capture_state": "recovering",
                    "recover_attempts": 2.7,
                    "echo_suppressed_chunks": 5,
                    "echo_suppression_recent_rate": 3,
                    "unknown": 1,
                },
            }
        )
        assert (ack["type"], ack["stream_role"]) == ("capture_status_ack", "teacher")
        payload = ack["payload"]
        assert payload["capture_state"] == "recovering"
        assert (payload["recover_attempts"], payload["echo_suppression_recent_rate"]) == (2, 1)
        for payload in ({"capture_state": "flying"}, None, 5, "x", [1]):
            refused = await client.ask({"type": "capture_status", "payload": payload})
            assert refused["type"] == "error", payload
        reset = await client.ask({"type": "capture_status", "payload": {"recover_attempts": None}})
        assert reset["payload"]["recover_attempts"] == 0
    state = json.loads(server.get(f"/v1/sessions/{session}/state").body)
    mixed = state["capture_by_stream"]["mixed"]
    assert (mixed["capture_state"], mixed["echo_suppressed_chunks"]) == ("recovering", 5)


async def test_w29_only_what_changed_is_stamped(server: Server, session: str) -> None:
    async def stamps() -> tuple[str, Answer]:
        answer = await asyncio.to_thread(server.get, f"/v1/sessions/{session}/state")
        state = json.loads(answer.body)
        captures = state["capture_by_stream"]
        return state["updated_at"], {role: captures[role]["updated_at"] for role in captures}

    running = {"type": "capture_status", "payload": {"capture_state": "running"}}
    async with (
        connected(server, session) as teacher,
        connected(server, session, "students") as students,
    ):
        await teacher.ask({"type": "hello", "interviewer_name": "Bill"})
        await teacher.ask(running)
        updated_at, first = await stamps()
        assert first["mixed"] == first["teacher"] == updated_at and first["students"] is None
        await students.ask(running)
        _, second = await stamps()
        assert second == {**first, "students": second["students"]} and second["students"]
        before = await stamps()
        for again in (running, {"type": "hello", "interviewer_name": "Bill"}, {"type": "hello"}):
            await teacher.ask(again)
        assert await stamps() == before


async def test_ping_is_answered_with_the_time(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        pong = await client.ask({"type": "ping"})
        assert set(pong) == {"type", "ts", "stream_role"}
        assert abs(pong["ts"] - time.time() * 1000) < 10_000


@pytest.mark.parametrize(
    ("reason", "said", "sent"),
    [
        ("smoke-complete", "smoke-complete", "smoke-complete"),
        (None, "client-close", "client-close"),
        ("x" * 500, "x" * 120, "x" * 120),
        ("再" * 300, "再" * 120, "再" * 41),
        ("😀" * 100, "😀" * 60, "😀" * 30),
        ("x" + "😀" * 100, "x" + "😀" * 59, "x" + "😀" * 30),
    ],
    ids=["short", "none", "long", "in three bytes", "in four bytes", "in halves"],
)
async def test_w35_close_is_answered_and_its_reason_cut(
    server: Server, session: str, reason: str | None, said: str, sent: str
) -> None:
    async with connected(server, session) as client:
        frame = {"type": "close"} if reason is None else {"type": "close", "reason": reason}
        closing = await client.ask(frame)
        assert closing == {"type": "closing", "reason": said, "stream_role": "teacher"}
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(client.socket.recv(), 15)
        assert (client.socket.close_code, client.socket.close_reason) == (1000, sent)


async def test_w32_ids_of_any_script_have_keys_of_their_own(server: Server) -> None:
    keys = set()
    for name in ("面试1", "会议1", "a b", "~x"):
        async with connected(server, f"{name}{uuid4().hex}", "mixed") as client:
            answer = await client.chunk(1)
            assert answer["stream_role"] == "mixed"
            keys.add(answer["key"])
    assert len(keys) == 4
    assert all(
        key.startswith("sessions/~") and key.endswith("/chunks/00000001.pcm") for key in keys
    )


@pytest.mark.parametrize("role", ["Teacher", "MIXED", "students/"])
async def test_roles_are_read_in_any_case(server: Server, session: str, role: str) -> None:
    url = f"ws://{server.address}/v1/audio/ws/{session}/{role}"
    async with connect(url) as socket:
        pong = await Client(socket, session, "").ask({"type": "ping"})
    assert pong["stream_role"] == role.strip("/").lower()


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (b"POST /v1/audio/ws/m1/teacher", b"Content-Length: 0\r\n", 405),
        (b"GET /v1/audio/ws/m1", b"", 426),
        (b"GET /v1/audio/ws/m1/teacher/", b"", 426),
        (b"GET /v1/audio/ws/m1/parents", UPGRADE, 400),
        (b"GET /v1/audio/ws/%zz/teacher", UPGRADE, 400),
        (b"GET /v1/audio/ws/%ff/teacher", UPGRADE, 400),
        (b"GET /v1/audio/ws/a%00b/teacher", UPGRADE, 400),
        (b"GET /v1/audio/ws/" + b"x" * 257, UPGRADE, 400),
        (b"GET /v1/audio/ws/m1?provider=nobody", UPGRADE, 400),
    ],
)
def test_what_is_no_socket_is_answered_in_json(
    server: Server, line: bytes, headers: bytes, status: int
) -> None:
    request = line + b" HTTP/1.1\r\nHost: x\r\n" + headers
    if b"Upgrade" not in headers:
        request += b"Connection: close\r\n"
    answer = server.exchange(request + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    if b"chunked" not in head:
        assert isinstance(json.loads(body)["detail"], str)


async def test_several_sockets_of_a_role_are_acked_and_share_its_counters(
    server: Server, session: str
) -> None:
    async with connected(server, session) as first, connected(server, session) as second:
        await first.ask({"type": "hello"})
        await second.ask({"type": "hello"})
        for seq in range(1, 9):
            answer = await (first, second)[seq % 2].chunk(seq)
            assert (answer["status"], counters(answer)) == ("stored", (seq, 0, 0))
        assert counters(await first.chunk(8)) == (8, 0, 1)
        await second.ask({"type": "close"})
        assert counters(await first.chunk(9)) == (9, 0, 1)


async def test_frames_sent_at_once_are_answered_in_their_order(
    server: Server, session: str
) -> None:
    async with connected(server, session) as client:
        for seq in range(1, 81):
            await client.socket.send(json.dumps(client.described(seq)))
        answers = [await client.answer() for _ in range(80)]
    assert [answer["seq"] for answer in answers] == list(range(1, 81))
    assert {answer["status"] for answer in answers} == {"stored"}


async def test_what_was_sent_before_a_sudden_end_is_stored(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        for seq in range(1, 21):
            await client.socket.send(struct.pack(">I", seq) + bytes(CHUNK_BYTES))
        await client.socket.close()
    deadline_s = time.monotonic() + 10
    while True:
        async with connected(server, session) as client:
            if (await client.ask({"type": "status"}))["last_seq"] == 20:
                return
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)


async def test_the_meeting_goes_on_after_finalize(server: Server, session: str) -> None:
    async with connected(server, session) as client:
        await client.chunk(1)
        headers = {"content-type": "application/json"}
        path = f"/v1/sessions/{session}/finalize"
        done = await asyncio.to_thread(
            lambda: server.get(path, "POST", body=b"{}", headers=headers, timeout_s=20)
        )
        assert done.status == 200
        assert (await client.chunk(2))["status"] == "stored"
        assert (await client.ask({"type": "hello"}))["ingest"]["last_seq"] == 2


async def test_w20_an_object_store_that_fails_is_told_with_the_chunk_and_nothing_is_counted(
    server: Server, session: str
) -> None:
    workshop = server.data_dir / "objects" / ".new"
    away = workshop.with_name("away")
    async with connected(server, session) as client:
        await client.chunk(1)
        workshop.rename(away)
        try:
            refused = await client.chunk(2)
            assert (refused["type"], refused["seq"]) == ("error", 2)
            assert refused["code"] == "objects_unavailable"
            assert str(server.data_dir) not in refused["detail"]
            assert (await client.chunk(1))["status"] == "duplicate"
            status = await client.ask({"type": "status"})
            assert (status["last_seq"], status["received_chunks"]) == (1, 1)
        finally:
            away.rename(workshop)
        assert counters(await client.chunk(2)) == (2, 0, 1)
