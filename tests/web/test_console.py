"""The console in Chromium at a real gateway: what each view does, and what none may do."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files

import pytest
import pytest_asyncio

from tests.support.server import Server, running
from tests.web.support.browser import Browser, Page, browsing
from tests.web.support.microphone import write_microphone

MOST_BYTES = 60_000
KEY = "console-key-0123456789"
HOSTILE = '<img src=x onerror="globalThis.hurt = 1">'
CAPTIONS = "document.getElementById('live-captions')"
CONTRAST = """(() => {
    const part = (value) =>
        (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            const alpha = color.startsWith("rgba") ? Number(color.match(/[\\d.]+/g)[3]) : 1;
            if (!color.startsWith("color") && alpha === 1) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
        const text = texts.some((node) => node.data.trim());
        if (!text || !element.checkVisibility() || element.disabled) continue;
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const name = element.textContent.slice(0, 20);
        if (ratio < 4.5) poor.push(`${element.tagName} ${name} ${ratio.toFixed(1)}`);
    }
    return poor;
})()"""
NAMELESS = """[...document.querySelectorAll("button, input, select, meter, audio, a, [tabindex]")]
    .filter((element) => element.checkVisibility() && !(element.labels?.length
        || element.getAttribute("aria-label") || element.textContent.trim()
        || element.id === "main"))
    .map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(
        "--workers",
        "2",
        "--set",
        "providers_priority=embedded",
        environment={"EDGESCRIBE_API_KEYS": f"{KEY}:admin"},
    ) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    path = tmp_path_factory.mktemp("console") / "microphone.wav"
    write_microphone(path, 7)
    async with browsing(path) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(browser: Browser, server: Server) -> Page:
    """The console, once its key is known; what it asks for and complains of is kept."""
    page = await browser.open(server.url + "/console")
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    await browser.call("Emulation.setEmulatedMedia", page.session, features=still)
    await page.run(
        "globalThis.complaints = [];"
        "addEventListener('error', ({message}) => complaints.push(message));"
        "addEventListener('unhandledrejection', ({reason}) => complaints.push(String(reason)));"
        "addEventListener('securitypolicyviolation', ({violatedDirective, blockedURI}) =>"
        " complaints.push(`${violatedDirective} ${blockedURI}`))"
    )
    return page


def test_it_is_small_and_loads_nothing_from_elsewhere() -> None:
    parts = [
        item for item in (files("edge.web") / "console").iterdir() if item.name != "sample.ogg"
    ]
    assert sum(len(item.read_bytes()) for item in parts) < MOST_BYTES
    for item in parts:
        text = item.read_text(encoding="utf-8")
        for scheme in ("http://", "https://", "//cdn"):
            found = text.replace("http://www.w3.org/2000/svg", "")
            assert scheme not in found, f"{item.name} names {scheme}"


def test_its_page_may_load_from_its_gateway_only(server: Server) -> None:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    for path in ("/console", "/console/", "/console/index.html"):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200 and b"<title>" in answer.read()
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    connection.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_it_asks_for_a_key_keeps_it_for_the_tab_and_goes_on(page: Page) -> None:
    await page.run("location.hash = '#health'")
    await page.until("document.getElementById('key-dialog').open")
    await page.run(
        f"document.getElementById('key-input').value = {json.dumps(KEY)};"
        "document.querySelector('#key-dialog .primary').click()"
    )
    await page.until("document.querySelectorAll('.figure').length === 8")
    assert await page.run("Object.values(localStorage).join() + document.cookie") == ""


@pytest.mark.asyncio(loop_scope="module")
async def test_a_refusal_from_before_the_key_asks_for_no_other(page: Page) -> None:
    """The key is given while a request without it is on its way."""
    script = f"""(async () => {{
        const {{ask}} = await import('/console/page.js');
        const name = 'edgescribe.key', real = window.fetch;
        sessionStorage.removeItem(name);
        window.fetch = async (...request) => {{
            window.fetch = real;
            const answer = await real(...request);
            sessionStorage.setItem(name, {json.dumps(KEY)});
            return answer;
        }};
        const answer = await ask('/status');
        return [answer.status, document.getElementById('key-dialog').open];
    }})()"""
    assert await page.run(script) == [200, False]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_microphone_becomes_captions(page: Page) -> None:
    await page.run(
        "location.hash = '#live'; document.getElementById('live-session').value = 'from-console';"
        "document.getElementById('live-mic').click()"
    )
    await page.until(f"{CAPTIONS}.querySelector('.interim')", 15)
    await page.until(f"/worst/i.test({CAPTIONS}.textContent)", 25)
    await page.until("/\\d ms/.test(document.getElementById('live-latency').textContent)")
    await page.until("/\\d ms/.test(document.getElementById('live-trip').textContent)")
    await page.run("document.getElementById('live-stop').click()")
    await page.until("document.getElementById('live-state').textContent === 'idle'", 15)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_sample_becomes_captions(page: Page) -> None:
    await page.run(
        "location.hash = '#live'; document.getElementById('live-session').value = 'sample';"
        "document.getElementById('live-sample').click()"
    )
    await page.until(f"/country/i.test({CAPTIONS}.textContent)", 25)
    await page.run("document.getElementById('live-stop').click()")
    await page.until("document.getElementById('live-state').textContent === 'idle'", 15)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_session_is_found_read_and_followed(page: Page) -> None:
    await page.run(
        "location.hash = '#sessions'; document.getElementById('find-prefix').value = 'from-';"
        "document.querySelector('#find button').click()"
    )
    await page.until("document.querySelectorAll('#session-list button').length === 1")
    await page.run("document.querySelector('#session-list button').click()")
    await page.until("/worst/i.test(document.getElementById('session').textContent)")
    await page.until("/following/.test(document.querySelector('#session .badge').textContent)")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_people_are_called_is_text(page: Page) -> None:
    await page.run(
        "location.hash = '#live';"
        f"document.getElementById('live-session').value = {json.dumps(HOSTILE)};"
        "document.getElementById('live-sample').click()"
    )
    await page.until(f"{CAPTIONS}.querySelector('p:not(.interim, .empty)')", 20)
    await page.run("document.getElementById('live-stop').click()")
    await page.until("document.getElementById('live-state').textContent === 'idle'", 15)
    await page.run(f"location.hash = '#sessions/' + encodeURIComponent({json.dumps(HOSTILE)})")
    await page.until(
        f"document.querySelector('#session h3')?.textContent === {json.dumps(HOSTILE)}"
    )
    assert await page.run("globalThis.hurt") is None
    assert await page.run("document.querySelectorAll('main img').length") == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_session_is_deleted_once_that_is_confirmed(page: Page) -> None:
    await page.run("document.querySelector('#session .danger').click()")
    await page.until("document.getElementById('sure').open")
    await page.run("document.querySelector('#sure .danger').click()")
    await page.until("/was deleted/.test(document.getElementById('session').textContent)")


@pytest.mark.asyncio(loop_scope="module")
async def test_health_is_measured_again_and_again(page: Page) -> None:
    await page.run("location.hash = '#health'")
    await page.until("/embedded/.test(document.getElementById('health-recognizers').textContent)")
    rows = "document.querySelectorAll('#health-stability tbody tr').length"
    assert await page.run(rows) == 4
    path = "document.querySelector('[data-figure=sessions] path').getAttribute('d')"
    before = await page.run(path)
    await page.until(f"{path} !== {json.dumps(before)}", 10)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", ["live", "sessions", "health"])
@pytest.mark.asyncio(loop_scope="module")
async def test_everything_can_be_read_and_has_a_name(page: Page, view: str, theme: str) -> None:
    await page.run(
        f"location.hash = '#{view}'; document.documentElement.dataset.theme = '{theme}';"
    )
    await page.until(f"!document.getElementById('view-{view}').hidden")
    assert await page.run(CONTRAST) == []
    assert await page.run(NAMELESS) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_phone_sees_all_of_it(browser: Browser, page: Page) -> None:
    await browser.call(
        "Emulation.setDeviceMetricsOverride",
        page.session,
        width=360,
        height=740,
        deviceScaleFactor=1,
        mobile=True,
    )
    for view in ("live", "sessions", "health"):
        await page.run(f"location.hash = '#{view}'")
        assert await page.run("document.documentElement.scrollWidth") <= 360, view


@pytest.mark.asyncio(loop_scope="module")
async def test_the_keyboard_reaches_everything_in_order(browser: Browser, page: Page) -> None:
    await browser.call("Page.bringToFront", page.session)
    await browser.call("Emulation.setFocusEmulationEnabled", page.session, enabled=True)
    await page.run("location.hash = '#live'")
    await page.until("document.hasFocus() && !document.getElementById('view-live').hidden")
    assert not await page.run("!!document.querySelector('dialog[open]')")
    await page.run("document.querySelector('.skip').focus()")
    await page.until("document.activeElement.className === 'skip'")
    reached: list[str] = []
    for _ in range(12):
        await page.run("before = document.activeElement, 0")
        for kind in ("rawKeyDown", "keyUp"):
            await browser.call(
                "Input.dispatchKeyEvent", page.session, type=kind, key="Tab", code="Tab",
                windowsVirtualKeyCode=9,
            )  # fmt: skip
        await page.until("document.activeElement !== before")
        reached.append(
            await page.run("document.activeElement.id || document.activeElement.textContent")
        )
    wanted = ["Live", "Sessions", "Health", "theme", "key", "live-session", "live-speaker"]
    assert [name for name in reached if name in wanted] == wanted, reached


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_went_wrong_and_nothing_was_asked_elsewhere(
    page: Page, server: Server
) -> None:
    assert await page.run("complaints") == []
    asked = await page.run("performance.getEntriesByType('resource').map(({name}) => name)")
    assert asked and all(
        name.startswith((server.url, "blob:", server.url.replace("http", "ws"))) for name in asked
    )
