"""Peers are asked whether they live, and time is kept for them."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect

from edge.transport.settings import LaneSettings
from edge.transport.watch import Verdict, Watch
from tests.transport.support import PING, PONG, RawClient, masked, serving, settings


async def test_a_peer_that_answers_pings_stays() -> None:
    async with serving(settings(client_ping_interval_s=0.1, client_pong_deadline_s=1.5)) as server:
        client = await RawClient.connect(server)
        # Longer than the deadline: without the answers it would be closed by then.
        for _ in range(20):
            opcode, payload = await client.frame()
            assert opcode == PING
            client.send(masked(PONG, payload))
        assert (await server.recorder()).socket.is_open
        await client.leave()


async def test_a_silent_peer_is_closed_with_1011() -> None:
    async with serving(
        settings(
            client_ping_interval_s=0.05, client_pong_deadline_s=0.1, client_close_timeout_s=0.1
        )
    ) as server:
        client = await RawClient.connect(server)
        recorder = await server.recorder()
        assert await client.frame() == (PING, b"")
        assert (await client.until_close())[0] == 1011
        close = await recorder.ended()
        assert (close.code, close.by_peer) == (1011, False)
        assert server.lanes.counts().silent_peers == 1
        await client.leave()


async def test_the_websockets_client_lives_through_pings_of_both_sides() -> None:
    async with (
        serving(settings(client_ping_interval_s=0.05, client_pong_deadline_s=1.0)) as server,
        connect(server.url, ping_interval=0.05, ping_timeout=1.0) as client,
    ):
        recorder = await server.recorder()
        # Longer than either deadline.
        await asyncio.sleep(1.5)
        await client.send("still here")
        await recorder.received(1)


class TestWatch:
    """The rules alone, with a clock of the test's own."""

    rules = LaneSettings(
        client_ping_interval_s=20, client_pong_deadline_s=10, client_send_timeout_s=5
    )

    def look(
        self,
        watch: Watch,
        now_s: float,
        heard: int = 0,
        written: int = 0,
        unsent: int = 0,
        listening: bool = True,
    ) -> Verdict:
        return watch.look(
            now_s,
            self.rules,
            heard_bytes=heard,
            written_bytes=written,
            unsent_bytes=unsent,
            listening=listening,
        )

    def test_ping_then_drop(self) -> None:
        watch = Watch(100, self.rules)
        assert self.look(watch, 119) is Verdict.NOTHING
        assert self.look(watch, 120) is Verdict.PING
        assert self.look(watch, 129) is Verdict.NOTHING
        assert self.look(watch, 130) is Verdict.DROP_SILENT

    def test_any_byte_answers_a_ping(self) -> None:
        watch = Watch(100, self.rules)
        assert self.look(watch, 120, heard=5) is Verdict.PING
        assert self.look(watch, 125, heard=6) is Verdict.NOTHING
        assert self.look(watch, 144, heard=6) is Verdict.NOTHING
        assert self.look(watch, 145, heard=6) is Verdict.PING

    def test_nobody_is_called_silent_while_we_do_not_listen(self) -> None:
        watch = Watch(100, self.rules)
        assert self.look(watch, 120) is Verdict.PING
        assert self.look(watch, 130, listening=False) is Verdict.NOTHING

    def test_zero_interval_never_pings(self) -> None:
        watch = Watch(100, settings())
        assert self.look(watch, 1e9) is Verdict.NOTHING

    def test_the_oldest_unsent_byte_counts_not_the_progress(self) -> None:
        watch = Watch(100, self.rules)
        assert self.look(watch, 101, written=1000, unsent=1000) is Verdict.NOTHING
        # A trickle of 10 bytes a second leaves the bytes of second 101 waiting.
        assert self.look(watch, 103, written=1000, unsent=980) is Verdict.NOTHING
        assert self.look(watch, 104, written=1000, unsent=970) is Verdict.NOTHING
        assert self.look(watch, 106, written=1000, unsent=950) is Verdict.DROP_SLOW

    def test_a_peer_that_keeps_up_with_a_full_pipe_is_not_slow(self) -> None:
        watch = Watch(100, self.rules)
        for second in range(101, 200):
            written = second * 1000
            verdict = self.look(watch, second, heard=second, written=written, unsent=1500)
            assert verdict in (Verdict.NOTHING, Verdict.PING)

    def test_cut_at_keeps_the_earliest_time(self) -> None:
        watch = Watch(100, self.rules)
        assert not watch.is_cut(1e12)
        watch.cut_at(105)
        watch.cut_at(200)
        assert not watch.is_cut(104.9)
        assert watch.is_cut(105)
