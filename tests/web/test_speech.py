"""The JavaScript client in Chromium at a real gateway: real speech, real captions."""

from __future__ import annotations

import gzip
import http.client
import json
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.server import Server, running
from tests.support.speech import two_cities_pcm
from tests.web.support.browser import Browser, Page, browsing

SECONDS = 7
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
    _write_wav(path, two_cities_pcm()[: SECONDS * 48000 * 2] + bytes(2 * 48000 * 2))
    async with browsing(path) as browser:
        yield browser


def _write_wav(path: Path, pcm: bytes) -> None:
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, 48000, 0, "NONE", ""))
        wav.writeframes(pcm)


async def joined(browser: Browser, server: Server, options: str) -> Page:
    page = await browser.open(f"{server.url}/edgescribe.js")
    await page.run(
        f"""import("/edgescribe.js").then(({{ EdgeSession }}) => {{
            globalThis.told = [];
            globalThis.parts = 0;
            globalThis.session = new EdgeSession("/listen", {{session: "cities", {options}}});
            session.on("event", (event) => told.push(event));
            session.on("part", () => {{ parts += 1; }});
            session.connect();
        }})"""
    )
    await page.until("session.state === 'open'")
    return page


@pytest.mark.asyncio(loop_scope="module")
async def test_captions_appear_and_a_listener_sees_the_same_log(
    browser: Browser, server: Server
) -> None:
    listener = await joined(browser, server, "")
    speaker = await joined(browser, server, 'role: "speaker", speaker: "reader"')
    await speaker.run(
        "session.startMicrophone({echoCancellation: false, noiseSuppression: false,"
        " autoGainControl: false}).then(() => null)"
    )
    finals = "told.filter((event) => event.k === 'final').map((event) => event.data.text).join(' ')"
    await listener.until(f"{finals}.toLowerCase().includes('worst of times') && {finals}", 15)
    heard = await listener.run(finals)
    await speaker.until(f"{finals} === {json.dumps(heard)}", 5)
    assert await listener.run("parts") > 0
    offsets = await listener.run("told.map((event) => event.o)")
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    await speaker.run("session.close()")
    await listener.run("session.close()")
