"""The edge.session.v1 socket: how connections begin, what they may say, and how they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from edge.ingest.session_audio import MAX_JUMP, audio_frame
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.ingest.support.session import SUBPROTOCOL, Author, client
from tests.support.server import Server, running

SILENCE = bytes(640)
HELLO_DEADLINE_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, which takes admins and is impatient."""
    environment = {
        "EDGESCRIBE_STORE": str(tmp_path_factory.mktemp("store") / "sessions.db"),
        "ENABLE_DUMMY_PROVIDER": "true",
        "EDGESCRIBE_SESSION_ADMINS": "true",
        "EDGESCRIBE_HELLO_DEADLINE_S": str(HELLO_DEADLINE_S),
        "EDGESCRIBE_LISTEN_PATHS": "/listen,/v1/voice",
    }
    with running("--workers", "1", environment=environment) as started:
        started.location = environment["EDGESCRIBE_STORE"]  # type: ignore[attr-defined]
        yield started


@pytest.fixture
async def store(server: Server) -> AsyncIterator[SessionStore]:
    async with open_store(server.location) as opened:  # type: ignore[attr-defined]
        yield opened


async def refused(server: Server, target: str) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://{server.address}{target}", subprotocols=[SUBPROTOCOL]):
            pass
    return caught.value


# Before the hello


def test_without_an_upgrade_it_asks_for_one(server: Server) -> None:
    assert server.get("/listen?session=a").status == 426


@pytest.mark.parametrize(
    "query", ["session=" + "x" * 257, "session=%01", "speaker=a/1", "provider=x"]
)
async def test_a_bad_query_is_refused_before_the_upgrade(server: Server, query: str) -> None:
    assert (await refused(server, f"/listen?{query}")).response.status_code == 400


async def test_the_subprotocol_is_picked_among_others(server: Server) -> None:
    offered = ["other", SUBPROTOCOL]
    async with connect(f"ws://{server.address}/v1/voice", subprotocols=offered) as opened:
        assert opened.subprotocol == SUBPROTOCOL


async def test_who_says_no_hello_is_closed(server: Server) -> None:
    async with client(server) as page:
        assert (await page.closed(HELLO_DEADLINE_S + 3))[0] == 4001


@pytest.mark.parametrize(
    "sent",
    [
        "not json",
        '{"type":"ping"}',
        '{"type":"hello","role":"king"}',
        b"audio",
        '{"type":"hello","role":"speaker","audio":{"encoding":"pcm16","rate":12345}}',
        '{"type":"hello","role":"speaker","audio":{"encoding":"mp3"}}',
    ],
)
async def test_whatever_is_no_hello_is_4001(server: Server, sent: str | bytes) -> None:
    async with client(server) as page:
        await page.socket.send(sent)
        assert (await page.closed())[0] == 4001
        assert page.of("err")[0]["code"] == "bad_hello"


# The hello


async def test_a_first_connection_opens_the_session(server: Server) -> None:
    async with client(server, "session=new") as page:
        welcome = await page.hello()
        assert welcome["session"] == "new" and welcome["role"] == "listener"
        assert (welcome["recovered"], welcome["audio_ack"]) == (False, 0)
        assert welcome["snapshot"] == {"type": "snapshot", "finals": [], "more": False}
        assert welcome["limits"]["message_bytes"] == 65536
        assert "speaker" not in welcome


async def test_a_session_without_a_name_gets_one_of_its_own(server: Server) -> None:
    async with client(server) as one, client(server, "session=") as other:
        names = {(await one.hello())["session"], (await other.hello())["session"]}
        assert len(names) == 2


async def test_what_was_missed_is_replayed(server: Server, store: SessionStore) -> None:
    author = await Author.open(store, "missed")
    await author.say(3)
    async with client(server, "session=missed") as page:
        first = await page.hello()
    await author.say(4)
    async with client(server, "session=missed") as page:
        resume = {"epoch": first["epoch"], "offset": first["offset"]}
        welcome = await page.hello(resume=resume, lost_ms=250)
        assert welcome["recovered"] and "snapshot" not in welcome
        await page.until(lambda: page.offsets == [4, 5, 6, 7])
        assert [event["data"]["turn"] for event in page.of("ev")] == [4, 5, 6, 7]


# Afterwards


async def test_a_ping_is_answered_with_its_id(server: Server) -> None:
    async with client(server) as page:
        await page.hello()
        await page.send("ping", id="seven")
        await page.send("ping")
        await page.until(lambda: len(page.of("pong")) == 2)
        assert page.of("pong") == [{"type": "pong", "id": "seven"}, {"type": "pong"}]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("not json", 1007),
        ('{"type":"hello"}', 4001),
        (audio_frame(1, 0, SILENCE), 1008),
        ('{"type":"ping","id":"' + "x" * 70_000 + '"}', 1009),
    ],
    ids=["no JSON", "second hello", "audio of a listener", "too long"],
)
async def test_what_a_listener_may_not(server: Server, sent: str | bytes, code: int) -> None:
    async with client(server) as page:
        await page.hello()
        await page.socket.send(sent)
        assert (await page.closed())[0] == code


async def test_text_that_is_not_utf_8_is_1007(server: Server) -> None:
    async with client(server) as page:
        await page.hello()
        frame = bytes([0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28])
        page.socket.transport.write(frame)
        assert (await page.closed())[0] == 1007


async def test_messages_that_are_not_known_are_answered_some_times(server: Server) -> None:
    async with client(server) as page:
        await page.hello()
        for _ in range(10):
            await page.send("sing")
        await page.until(lambda: len(page.of("err")) == 10)
        await page.send("ping")
        await page.until(lambda: page.of("pong"))
        await page.send("sing")
        assert (await page.closed())[0] == 1008


@pytest.mark.parametrize(
    "frame",
    [b"", b"short", b"\x02" + audio_frame(1, 0, SILENCE)[1:], audio_frame(0, 0, SILENCE)],
    ids=["empty", "short", "version", "number 0"],
)
async def test_a_frame_that_is_no_audio_is_1003(server: Server, frame: bytes) -> None:
    async with client(server) as page:
        await page.hello("speaker")
        await page.socket.send(frame)
        assert (await page.closed())[0] == 1003
        assert page.of("err")[0]["code"] == "bad_audio"


async def test_a_huge_jump_of_numbers_is_1003(server: Server) -> None:
    async with client(server) as page:
        await page.hello("speaker")
        await page.audio(SILENCE)
        page.seq += MAX_JUMP + 1
        await page.audio(SILENCE)
        assert (await page.closed())[0] == 1003


# Audio


async def test_audio_is_acknowledged_within_a_second_and_after_many_frames(server: Server) -> None:
    async with client(server) as page:
        await page.hello("speaker")
        await page.audio(*[SILENCE] * 3)
        await page.until(lambda: page.of("ack"), 3)
        assert page.of("ack") == [{"type": "ack", "seq": 3}]
        await page.audio(*[SILENCE] * 60)
        await page.until(lambda: page.of("ack")[-1]["seq"] == 53, 0.9)


async def test_frames_that_come_again_are_acknowledged_and_not_taken(server: Server) -> None:
    async with client(server) as page:
        await page.hello("speaker")
        await page.audio(*[SILENCE] * 30)
        page.seq = 10
        await page.audio(*[SILENCE] * 40)
        await page.until(lambda: page.of("ack") and page.of("ack")[-1]["seq"] == 50, 3)


async def test_a_lost_speaker_goes_on_where_it_was(server: Server) -> None:
    async with client(server, "session=lost&speaker=anna") as page:
        first = await page.hello("speaker")
        await page.audio(*[SILENCE] * 20)
        await page.until(lambda: page.of("ack"), 3)
        await page.lose()
    resume = {"epoch": first["epoch"], "offset": first["offset"], "audio_seq": 20}
    async with client(server, "session=lost&speaker=anna") as page:
        welcome = await page.hello("speaker", resume=resume)
        assert (welcome["recovered"], welcome["audio_ack"]) == (True, 20)
        page.seq = 18
        await page.audio(*[SILENCE] * 5)
        await page.until(lambda: page.of("ack"), 3)
        assert page.of("ack")[-1]["seq"] == 23
    async with client(server, "session=lost&speaker=anna") as page:
        assert (await page.hello("speaker"))["audio_ack"] == 0


async def test_a_newer_connection_of_a_speaker_supersedes_the_older(server: Server) -> None:
    query = "session=twice&speaker=anna"
    async with client(server, query) as old, client(server, "session=twice") as listener:
        await old.hello("speaker")
        await listener.hello()
        async with (
            client(server, query) as new,
            client(server, "session=twice&speaker=bert") as other,
        ):
            await new.hello("speaker")
            await other.hello("speaker")
            assert (await old.closed())[0] == 4009
            for page in (new, other, listener):
                await page.send("ping")
                await page.until(lambda page=page: page.of("pong"))


# Presence


async def test_a_reconnect_does_not_flicker_and_a_leave_comes_late(server: Server) -> None:
    loop = asyncio.get_running_loop()
    async with client(server, "session=room") as watcher:
        await watcher.hello()
        async with client(server, "session=room&speaker=anna") as page:
            await page.hello("speaker")
            await watcher.until(lambda: watcher.events("join"))
            assert watcher.events("join")[0]["data"]["speaker"] == "anna"
            await page.lose()
        async with client(server, "session=room&speaker=anna") as page:
            await page.hello("speaker")
            await page.lose()
            gone_s = loop.time()
        async with client(server, "session=room") as silent:
            await silent.hello()
        await watcher.until(lambda: watcher.events("leave"))
        assert loop.time() - gone_s > 4.5
        kinds = [event["k"] for event in watcher.of("ev")]
        assert kinds == ["join", "leave"]


# Commands


async def test_a_command_is_done_once_and_its_answer_repeated(
    server: Server, store: SessionStore
) -> None:
    async with client(server, "session=once&speaker=anna") as page:
        await page.hello("speaker")
        first = await page.command("c1", "configure", values={"topic": "weather"})
        assert first == {"type": "res", "id": "c1", "ok": True, "data": {"topic": "weather"}}
        await page.until(lambda: page.events("config"))
    async with client(server, "session=once&speaker=anna") as page:
        await page.hello("speaker")
        assert await page.command("c1", "configure", values={"topic": "weather"}) == first
        other = await page.command("c1", "configure", values={"topic": "sports"})
        assert other["err"]["code"] == "id_taken"
        named = await page.command("c2", "rename", name="Anna B.")
        assert named["data"] == {"topic": "weather", "name:anna": "Anna B."}
        await page.until(lambda: page.events("config"))
        log = await page.command("c3", "history")
        changes = [event for event in log["data"]["entries"] if event["k"] == "config"]
        assert len(changes) == 2


@pytest.mark.parametrize(
    ("role", "op", "data", "code"),
    [
        ("listener", "mute", {}, "forbidden"),
        ("listener", "clear", {}, "forbidden"),
        ("speaker", "clear", {}, "forbidden"),
        ("speaker", "mute", {"speaker": "bert"}, "forbidden"),
        ("speaker", "mute", {"muted": "yes"}, "bad_data"),
        ("speaker", "configure", {"values": {"name:anna": "x"}}, "bad_data"),
        ("speaker", "configure", {"values": {"x": "y" * 20_000}}, "too_much"),
        ("admin", "mute", {"speaker": "a\nb"}, "bad_data"),
        ("admin", "end_turn", {}, "bad_data"),
    ],
)
async def test_a_command_that_may_not_be_done_says_why(
    server: Server, role: str, op: str, data: dict[str, object], code: str
) -> None:
    async with client(server, "session=rights") as page:
        await page.hello(role)
        result = await page.command(f"{role}-{op}-{code}-{len(str(data))}", op, **data)
        assert not result["ok"] and result["err"]["code"] == code


async def test_an_admin_clears_the_history_for_all(server: Server, store: SessionStore) -> None:
    await (await Author.open(store, "wiped")).say(5)
    async with client(server, "session=wiped") as admin, client(server, "session=wiped") as page:
        first = await admin.hello("admin")
        await page.hello()
        result = await admin.command("wipe", "clear")
        assert result["ok"] and result["data"]["epoch"] != first["epoch"]
        await page.until(lambda: len(page.of("welcome")) == 2)
        assert page.of("welcome")[1]["snapshot"]["finals"] == []


async def test_who_leaves_is_answered_and_closed(server: Server) -> None:
    async with client(server, "session=left&speaker=anna") as page:
        await page.hello("speaker")
        await page.audio(SILENCE)
        await page.send("cmd", id="bye", op="leave")
        assert (await page.closed())[0] == 1000
        assert page.results("bye")[0]["ok"]


# Refusals of a worker that is full, or takes no admins


async def test_a_full_worker_refuses_before_the_upgrade_and_admins_are_refused() -> None:
    environment = {"ENABLE_DUMMY_PROVIDER": "true", "EDGESCRIBE_SESSION_CONNECTIONS": "1"}
    with running("--workers", "1", environment=environment) as server:
        async with client(server) as page:
            answer = (await refused(server, "/listen")).response
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
            await page.send("hello", role="admin")
            assert (await page.closed())[0] == 4003


async def test_garbage_after_the_handshake_leaves_neighbours_alone(server: Server) -> None:
    async with client(server, "session=calm") as page:
        await page.hello()
        for garbage in (b"\xff" * 50, b"\x82\xff" + b"\xff" * 8, b"\x81\x80\0\0\0\0" * 3):
            raw = await asyncio.to_thread(_upgraded, server)
            raw.sendall(garbage)
            raw.close()
        await page.send("ping")
        await page.until(lambda: page.of("pong"))


def _upgraded(server: Server) -> socket.socket:
    raw = socket.create_connection((server.host, server.port), timeout=5)
    raw.sendall(
        b"GET /listen HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Protocol: edge.session.v1\r\n\r\n"
    )
    assert b"101" in raw.recv(4096)
    return raw
