"""The JavaScript client in Chromium against a peer that the test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.web.support.browser import Browser, Page, browsing
from tests.web.support.gateway_script import Peer, Script, event, scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def script() -> AsyncIterator[Script]:
    async with scripted() as script:
        yield script


async def opened(browser: Browser, script: Script, options: str = "") -> tuple[Page, Peer]:
    """A page with ``session`` connecting, and the peer of its connection."""
    page = await browser.open(f"http://127.0.0.1:{script.port}/")
    await page.run(
        f"""import("/edgescribe.js").then((library) => {{
            globalThis.library = library;
            globalThis.told = [];
            globalThis.session = new library.EdgeSession("/listen",
                {{session: "s", backoff_ms: 20, {options}}});
            session.on("event", (event) => told.push(event.o));
            session.on("reset", () => told.push("reset"));
            session.connect();
        }})"""
    )
    return page, await script.next()


async def speaker(browser: Browser, script: Script, options: str = "") -> tuple[Page, Peer]:
    return await opened(browser, script, f'role: "speaker", speaker: "anna", {options}')


async def say(page: Page, frames: int) -> None:
    await page.run(f"for (let n = 0; n < {frames}; n++) session.send(new Int16Array(640).fill(n))")


async def done(page: Page, script: Script) -> None:
    await page.run("session.close()")
    assert script.is_quiet


async def test_a_reconnect_resumes_and_tells_no_event_twice(
    browser: Browser, script: Script
) -> None:
    page, peer = await opened(browser, script)
    hello = await peer.welcome(2, recovered=False, snapshot={"finals": [event(2)], "more": False})
    assert hello["role"] == "listener" and "resume" not in hello
    for offset in (3, 4):
        await peer.event(offset)
    await page.until("session.offset === 4")
    peer.socket.transport.abort()
    peer = await script.next()
    hello = await peer.welcome(6)
    assert hello["resume"] == {"epoch": "e", "offset": 4} and hello["lost_ms"] >= 0
    for offset in (4, 5, 6, 6):
        await peer.event(offset)
    await page.until("session.offset === 6")
    assert await page.run("told") == ["reset", 2, 3, 4, 5, 6]
    await done(page, script)


async def test_a_snapshot_that_was_cut_off_comes_again_as_a_whole(
    browser: Browser, script: Script
) -> None:
    page, peer = await opened(browser, script)
    await peer.welcome(9, recovered=False, snapshot={"finals": [event(1)], "more": True})
    await page.until("told.length === 2")
    peer.socket.transport.abort()
    peer = await script.next()
    hello = await peer.welcome(9, recovered=False, snapshot={"finals": [event(1)], "more": True})
    assert hello["resume"] == {"epoch": "", "offset": 0}
    await peer.send("snapshot", finals=[event(7)], more=False)
    await peer.event(10)
    await page.until("session.offset === 10")
    assert await page.run("told") == ["reset", 1, "reset", 1, 7, 10]
    await done(page, script)


async def test_audio_is_numbered_timed_and_sent_again_from_what_the_gateway_has(
    browser: Browser, script: Script
) -> None:
    page, peer = await speaker(browser, script)
    await say(page, 3)
    hello = await peer.welcome()
    assert hello["audio"] == {"encoding": "pcm16", "rate": 16000, "channels": 1}
    assert peer.query == {"session": "s", "speaker": "anna"}
    assert await peer.heard(3) == [1, 2, 3]
    assert [frame.ms for frame in peer.frames] == [0, 40, 80]
    assert peer.frames[2].payload == b"\x02\x00" * 640
    await say(page, 7)
    await peer.heard(10)
    await peer.send("ack", seq=10)
    await page.until("session.acked === 10")
    peer.socket.transport.abort()
    await page.until("session.state !== 'open'")
    await say(page, 75)
    peer = await script.next()
    hello = await peer.welcome(audio_ack=4)
    assert hello["resume"]["audio_seq"] == 10
    assert await peer.heard(85) == list(range(5, 86))
    assert await page.run("session.lost_audio_ms") == 0
    await done(page, script)


async def test_what_the_ring_cannot_hold_is_left_out_and_counted(
    browser: Browser, script: Script
) -> None:
    page, peer = await speaker(browser, script, "ring_ms: 400")
    await peer.welcome()
    await say(page, 5)
    await peer.heard(5)
    peer.socket.transport.abort()
    await page.until("session.state !== 'open'")
    await say(page, 20)
    peer = await script.next()
    await peer.welcome(audio_ack=2)
    assert await peer.heard(25) == list(range(16, 26))
    assert peer.frames[0].ms == 15 * 40
    # The third to fifth were sent, and lost with the connection.
    assert await page.run("session.lost_audio_ms") == 13 * 40
    await done(page, script)


async def test_commands_without_an_answer_are_sent_again_under_their_ids(
    browser: Browser, script: Script
) -> None:
    page, peer = await speaker(browser, script)
    await peer.welcome()
    await page.run(
        """globalThis.results = [];
        session.command("mute", {muted: true}).then((data) => results.push(data));
        session.command("clear").catch((error) => results.push([error.code, error.retry]));
        null"""
    )
    mute, clear = await peer.next("cmd"), await peer.next("cmd")
    assert mute["op"] == "mute" and mute["data"] == {"muted": True} and mute["id"] != clear["id"]
    err = {"code": "forbidden", "message": "no", "retry": False}
    await peer.send("res", id=clear["id"], ok=False, err=err)
    await page.until("results.length === 1")
    peer.socket.transport.abort()
    peer = await script.next()
    await peer.welcome()
    assert await peer.next("cmd") == mute
    await peer.send("res", id=mute["id"], ok=True, data={"done": 1})
    await page.until("results.length === 2")
    assert await page.run("results") == [["forbidden", False], {"done": 1}]
    await done(page, script)


async def test_many_commands_are_sent_as_answers_come(browser: Browser, script: Script) -> None:
    page, peer = await opened(browser, script)
    await peer.welcome()
    await page.run("for (let n = 0; n < 20; n++) session.command('history'); null")
    sent = [await peer.next("cmd") for _ in range(16)]
    assert peer.messages.empty()
    await peer.send("res", id=sent[0]["id"], ok=True)
    await peer.next("cmd")
    await page.run(
        "session.onerror = null; addEventListener('unhandledrejection', (e) => e.preventDefault())"
    )
    await done(page, script)


@pytest.mark.parametrize("code", [1000, 1008, 4001, 4003, 4004, 4009, 4401])
async def test_it_stays_away_where_coming_back_is_no_use(
    browser: Browser, script: Script, code: int
) -> None:
    page, peer = await opened(browser, script)
    await page.run("session.on('state', (state, details) => { globalThis.last = details }); null")
    await peer.welcome()
    await peer.socket.close(code, "why")
    await page.until("session.state === 'closed'")
    assert await page.run("last") == {"code": code, "reason": "why"}
    assert script.is_quiet


@pytest.mark.parametrize("code", [1001, 1012, 4008])
async def test_it_comes_back_after_other_codes(browser: Browser, script: Script, code: int) -> None:
    page, peer = await opened(browser, script)
    await peer.welcome(3)
    await peer.socket.close(code)
    peer = await script.next()
    assert "resume" in await peer.welcome(3)
    await done(page, script)


async def test_a_gateway_that_stops_is_left_alone_for_as_long_as_it_says(
    browser: Browser, script: Script
) -> None:
    page, peer = await opened(browser, script)
    await peer.welcome()
    await peer.send("drain", retry_in_ms=400, deadline_ms=1000)
    await page.until("session._retryMs === 400")
    assert await page.run("session.state") == "open"
    loop = asyncio.get_running_loop()
    closed_s = loop.time()
    await peer.socket.close(1012)
    peer = await script.next()
    assert loop.time() - closed_s > 0.35
    await peer.welcome()
    await done(page, script)


async def test_a_path_that_says_nothing_any_more_is_given_up(
    browser: Browser, script: Script
) -> None:
    page, peer = await opened(browser, script, "silence_ms: 400")
    await peer.welcome()
    await peer.next("ping")
    peer = await script.next()
    await peer.welcome()
    ping: dict[str, Any] = await peer.next("ping")
    assert ping == {"type": "ping"}
    await done(page, script)


async def test_leave_waits_for_the_last_words(browser: Browser, script: Script) -> None:
    page, peer = await speaker(browser, script)
    await peer.welcome()
    await say(page, 5)
    leaving = asyncio.create_task(page.run("session.leave().then(() => told)"))
    command = await peer.next("cmd")
    assert command["op"] == "leave" and await peer.heard(5)
    await peer.send("res", id=command["id"], ok=True)
    await peer.event(1)
    await peer.socket.close(1000)
    assert await leaving == [1]


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
async def test_the_microphone_is_resampled_without_aliases(
    browser: Browser, script: Script, rate: int
) -> None:
    page, peer = await opened(browser, script)
    await peer.welcome()
    measure = f"""(hz) => {{
        const resampler = new library.Resampler({rate});
        const output = [];
        for (let start = 0; start < {rate}; start += 128) {{
            const block = Float32Array.from({{length: 128}}, (_, n) =>
                0.5 * Math.sin(2 * Math.PI * hz * (start + n) / {rate}));
            output.push(...resampler.take(block));
        }}
        const middle = output.slice(2000, 14000);
        const power = middle.reduce((sum, sample) => sum + sample * sample, 0) / middle.length;
        return [output.length, Math.sqrt(2 * power) / 32767];
    }}"""
    for hz in (200, 1000, 5000):
        length, level = await page.run(f"({measure})({hz})")
        assert abs(length - 16000) < 64 and abs(level - 0.5) < 0.01, hz
    if rate > 16000:
        assert (await page.run(f"({measure})(11000)"))[1] < 0.002
    await done(page, script)
