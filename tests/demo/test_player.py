"""The bridge's behaviour on a connection: pace, pings, the end."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from edge.demo import player
from edge.demo.bridge import Line, Schedule, Source, build_schedule
from edge.demo.client import Disconnected, ServerMessage
from edge.demo.player import BridgePlayer
from tests.demo.recordings import tone
from tests.demo.scripted import gateway, result


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return build_schedule([Source(tag="abcdef01-1", speech=tone(0.4))], Line())


class Recorder:
    """A gateway that remembers what it got and answers pings."""

    def __init__(self, *, pongs: bool = True) -> None:
        self.events: list[dict[str, object]] = []
        self.close: tuple[int | None, str | None] | None = None
        self._pongs = pongs

    async def __call__(self, socket: ServerConnection) -> None:
        try:
            while True:
                event = json.loads(await socket.recv())
                self.events.append(event)
                if event["event"] == "ping" and self._pongs:
                    await socket.send(json.dumps({"event": "pong", "id": event["id"]}))
                if event.get("media") and len(self.events) == 10:
                    await socket.send("not json")
                    await socket.send(result("hel", interim=True))
                    await socket.send(result("hello"))
        except ConnectionClosed:
            self.close = (socket.close_code, socket.close_reason)


async def test_it_sends_everything_and_ends_like_a_bridge(schedule: Schedule) -> None:
    recorder = Recorder()
    heard: list[tuple[float, ServerMessage]] = []
    progress: list[float] = []
    async with gateway(recorder) as address:
        played = await BridgePlayer(
            f"ws://{address}/transcribe",
            schedule,
            lambda at_s, message: heard.append((at_s, message)),
            progress.append,
        ).play()
    sent = [json.loads(departure.text) for departure in schedule.departures]
    assert recorder.events == [*sent, {"event": "session-end"}]
    assert recorder.close == (1001, "closing")
    assert played.packets == len(sent)
    assert played.latest_s < 5
    assert [message.text for _, message in heard] == ["hel", "hello"]
    assert progress and progress == sorted(progress)


async def test_pings_are_answered_and_go_on(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "PING_EVERY_S", 0.1)
    recorder = Recorder()
    async with gateway(recorder) as address:
        url = f"ws://{address}/transcribe"
        played = await BridgePlayer(url, schedule, lambda at_s, message: None).play()
    ids = [event["id"] for event in recorder.events if event["event"] == "ping"]
    assert ids == list(range(1, len(ids) + 1)) and len(ids) >= 3
    assert 0 <= played.pings - len(ids) <= 1, "a ping may meet the closing socket"


async def test_a_missing_pong_ends_it_with_1000(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(player, "PONG_WITHIN_S", 0.05)
    recorder = Recorder(pongs=False)
    async with gateway(recorder) as address:
        with pytest.raises(Disconnected, match="ping 1 had no pong"):
            await BridgePlayer(
                f"ws://{address}/transcribe", schedule, lambda at_s, message: None
            ).play()
    assert recorder.close == (1000, "Ping timeout")


async def test_an_open_interim_is_waited_for(schedule: Schedule) -> None:
    ended = asyncio.Event()

    async def late(socket: ServerConnection) -> None:
        async for data in socket:
            if json.loads(data)["event"] == "start":
                await socket.send(result("hel", interim=True))
            if f'"{schedule.departures[-1].text}"' == f'"{data!s}"':
                await asyncio.sleep(2)
                assert not ended.is_set()
                await socket.send(result("hello"))
            if json.loads(data)["event"] == "session-end":
                ended.set()

    heard: list[str] = []
    async with gateway(late) as address:
        await BridgePlayer(
            f"ws://{address}/transcribe", schedule, lambda at_s, message: heard.append(message.text)
        ).play()
    assert heard == ["hel", "hello"]


async def test_a_close_by_the_gateway_is_told(schedule: Schedule) -> None:
    async def full(socket: ServerConnection) -> None:
        await socket.close(1013, "full")

    async with gateway(full) as address:
        with pytest.raises(Disconnected, match="1013 full"):
            await BridgePlayer(
                f"ws://{address}/transcribe", schedule, lambda at_s, message: None
            ).play()


async def test_what_fails_in_the_listener_is_not_lost(schedule: Schedule) -> None:
    def nobody_reads(at_s: float, message: ServerMessage) -> None:
        raise BrokenPipeError

    async with gateway(Recorder()) as address:
        with pytest.raises(BrokenPipeError):
            await BridgePlayer(f"ws://{address}/transcribe", schedule, nobody_reads).play()
