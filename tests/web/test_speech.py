"""The JavaScript client in Chromium at a real gateway: real speech, real captions."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import re
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support.server import Server, running
from tests.web.support.browser import Browser, Page, browsing
from tests.web.support.microphone import write_microphone
from tests.web.support.path import network_path

SECONDS = 7
SILENCE_S = 1.5
"""Before the reader, who begins 1.2 s into the recording: the way is cut while nothing is said."""
MOST_BYTES = 5000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("--workers", "2", "--set", "providers_priority=embedded") as server:
        yield server


def test_the_client_is_served_small_and_cached_by_its_tag(server: Server) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        connection.request("GET", "/edgescribe.js?v=1", headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200 and len(body) < MOST_BYTES
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        plain = server.get("/edgescribe.js")
        assert gzip.decompress(body) == plain.body and "content-encoding" not in plain.headers
        connection.request(
            "GET", "/edgescribe.js", headers={"If-None-Match": answer.headers["ETag"]}
        )
        again = connection.getresponse()
        assert (again.status, again.read()) == (304, b"")
    finally:
        connection.close()
    assert server.get("/edgescribe.js", "DELETE").status == 405


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    write_microphone(path, SECONDS, SILENCE_S)
    async with browsing(path) as browser:
        yield browser


async def joined(browser: Browser, url: str, name: str, options: str = "") -> Page:
    page = await browser.open(f"{url}/edgescribe.js")
    await page.run(
        f"""import("/edgescribe.js").then(({{ EdgeSession }}) => {{
            globalThis.told = [];
            globalThis.parts = 0;
            globalThis.session = new EdgeSession("/listen", {{session: "{name}", {options}}});
            session.on("event", (event) => told.push(event));
            session.on("part", () => {{ parts += 1; }});
            session.connect();
        }})"""
    )
    await page.until("session.state === 'open'")
    return page


MICROPHONE = """session.startMicrophone({echoCancellation: false, noiseSuppression: false,
    autoGainControl: false}).then(() => null)"""
FINALS = "told.filter((event) => event.k === 'final').map((event) => event.data.text).join(' ')"
READER = 'role: "speaker", speaker: "reader"'


@pytest.mark.asyncio(loop_scope="module")
async def test_captions_appear_and_a_listener_sees_the_same_log(
    browser: Browser, server: Server
) -> None:
    listener = await joined(browser, server.url, "cities")
    speaker = await joined(browser, server.url, "cities", READER)
    await speaker.run(MICROPHONE)
    heard = await listener.until(f"/worst of times/i.test({FINALS}) && {FINALS}", 25)
    await speaker.until(f"{FINALS} === {json.dumps(heard)}", 5)
    assert await listener.run("parts") > 0
    offsets = await listener.run("told.map((event) => event.o)")
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    await speaker.run("session.close()")
    await listener.run("session.close()")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_said_during_three_seconds_offline_is_neither_lost_nor_doubled(
    browser: Browser, server: Server
) -> None:
    listener = await joined(browser, server.url, "offline")
    async with network_path(server.host, server.port) as path:
        speaker = await joined(browser, f"http://127.0.0.1:{path.port}", "offline", READER)
        await speaker.run(MICROPHONE)
        await speaker.until("session.acked > 40")
        path.cut()
        await speaker.until("session.state === 'waiting'")
        await asyncio.sleep(3)
        path.mend()
        heard = await listener.until(f"/worst of times/i.test({FINALS}) && {FINALS}", 20)
        # The pause may have ended a sentence: words count, not full stops.
        words = " ".join(re.findall(r"[a-z]+", heard.lower()))
        assert words.startswith("it was the best of times it was the worst of times")
        assert words.count("best of times") == words.count("worst of times") == 1
        assert await speaker.run("session.lost_audio_ms") == 0
        await speaker.until(f"{FINALS} === {json.dumps(heard)}", 5)
        offsets = await speaker.run("told.map((event) => event.o)")
        assert offsets == sorted(set(offsets))
        await speaker.run("session.close()")
    await listener.run("session.close()")
