"""What the others said: whose words, how much of them, how often a recognizer is told."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from edge.session.context import MOST_FRESH_LINES, UPDATE_EVERY_S, SharedContext
from edge.session.live_track import LiveTrack
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.ingest.support.media import client, gateway


class Listener:
    """A track, and in the place of its transcriber itself: notes what it is told."""

    def __init__(self) -> None:
        self.others_said = ""
        self.told: list[tuple[float, str]] = []
        self.transcriber = self

    def share(self, context: str) -> None:
        self.told.append((time.monotonic(), context))


def session(count: int, max_size: int = 5120) -> tuple[SharedContext, list[LiveTrack]]:
    tracks = [cast(LiveTrack, Listener()) for _ in range(count)]
    return SharedContext(max_size, lambda: tracks), tracks


def told(track: LiveTrack) -> list[tuple[float, str]]:
    return cast(Listener, track).told


async def test_each_is_told_what_the_others_said_and_not_its_own_words() -> None:
    context, (a, b, c) = session(3)
    context.add(a, "ann", "good  morning\nall")
    context.add(b, "bob", "  ")
    context.add(b, "bob", "hello")
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert [text for _, text in told(a)] == ["bob: hello\n"]
    assert [text for _, text in told(b)] == ["ann: good morning all\n"]
    assert [text for _, text in told(c)] == ["ann: good morning all\nbob: hello\n"]
    context.stop()


async def test_however_many_finals_come_a_recognizer_is_told_once_a_second() -> None:
    context, tracks = session(3)
    until_s = time.monotonic() + 1.5 * UPDATE_EVERY_S
    count = 0
    while time.monotonic() < until_s:
        context.add(tracks[0], "ann", f"line {count}")
        count += 1
        await asyncio.sleep(0.002)
    context.stop()
    times_s = [at_s for at_s, _ in told(tracks[1])]
    assert len(times_s) == 2
    assert times_s[1] - times_s[0] >= 0.95 * UPDATE_EVERY_S
    assert told(tracks[0]) == []


async def test_what_waits_is_bounded_and_the_oldest_lines_go_first() -> None:
    context, (a, b) = session(2, max_size=100)
    for number in range(3 * MOST_FRESH_LINES):
        context.add(a, "ann", f"word{number}")
    assert len(b.others_said) <= 100
    await asyncio.sleep(0.01)
    ((_, text),) = told(b)
    lines = text.splitlines()
    assert len(text) <= 100 and lines[-1] == f"ann: word{3 * MOST_FRESH_LINES - 1}"
    assert all(line.startswith("ann: word") for line in lines)
    context.add(a, "ann", "x" * 500)
    await asyncio.sleep(UPDATE_EVERY_S + 0.1)
    assert b.others_said == "", "a line that does not fit is not cut in two"
    context.stop()


async def test_a_recognizer_gets_the_others_words_as_part_of_its_prompt() -> None:
    async with (
        gateway(FakeOpenAI(), BROADCAST_TRANSCRIPTS="true") as (server, endpoint),
        client(server, "sendBack=true") as media,
    ):
        await media.say("abcdef01-1", "alpha")
        await media.until(lambda: media.finals("abcdef01-1"))
        await media.say("b", "bravo")
        await media.until(lambda: media.finals("b"))
        await media.say("abcdef01-1", "charlie")
        await media.until(lambda: len(media.finals("abcdef01-1")) == 2)

        def prompts() -> list[str]:
            sessions = [heard.session or {} for heard in endpoint.connections]
            inputs = [each.get("audio", {}).get("input", {}) for each in sessions]
            return [each.get("transcription", {}).get("prompt", "") for each in inputs]

        async with asyncio.timeout(10):
            while not (prompts()[0].endswith("b: bravo\n") and "abcdef01: charlie" in prompts()[1]):
                await asyncio.sleep(0.02)
        assert "alpha" not in prompts()[0]
        assert not any(heard.violations for heard in endpoint.connections)
