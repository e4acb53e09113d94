"""``python -m tests.web.console_pictures``: the console's views as pictures in docs/images."""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
from pathlib import Path

from edge.demo.speech import demo_recordings
from tests.support.server import Server, edgescribe, running
from tests.web.support.browser import Browser, Page, browsing
from tests.web.support.microphone import write_microphone

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDE, PHONE = (1180, 760), (360, 740)
SETTLE_S = 0.4


async def shoot(
    browser: Browser, page: Page, name: str, size: tuple[int, int] = WIDE, *, dark: bool = False
) -> None:
    """Keep what a page looks like."""
    await browser.call(
        "Emulation.setDeviceMetricsOverride",
        page.session,
        width=size[0],
        height=size[1],
        deviceScaleFactor=1,
        mobile=False,
    )
    await page.run(f"document.documentElement.dataset.theme = '{'dark' if dark else 'light'}'")
    await asyncio.sleep(SETTLE_S)
    taken = await browser.call("Page.captureScreenshot", page.session, format="png")
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"console-{name}.png").write_bytes(base64.b64decode(taken["data"]))


async def pictures(browser: Browser, server: Server) -> None:
    """All views, with something in them."""
    page = await browser.open(server.url + "/console")
    await page.run(
        "document.getElementById('live-session').value = 'standup';"
        "document.getElementById('live-mic').click()"
    )
    await page.until("document.querySelectorAll('#live-captions p:not(.interim)').length > 1", 25)
    await page.until("document.querySelector('#live-captions .interim')", 15)
    await shoot(browser, page, "live")
    await shoot(browser, page, "live-dark", dark=True)
    await shoot(browser, page, "live-phone", PHONE)
    await page.run("location.hash = '#health'")
    await asyncio.sleep(25)
    await shoot(browser, page, "health")
    await shoot(browser, page, "health-dark", dark=True)
    await page.run("location.hash = '#sessions/interview'")
    await page.until("document.querySelectorAll('#session .line').length > 1", 15)
    await page.until("document.querySelector('audio')?.src", 15)
    await page.run("document.querySelector('audio').muted = true")
    await page.run("document.querySelector('button.seek').click()")
    await page.until("document.querySelector('.line.now')", 10)
    await shoot(browser, page, "sessions")
    await shoot(browser, page, "sessions-phone", PHONE, dark=True)


async def main() -> None:
    """Record an interview first, so that there is stored audio."""
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        write_microphone(microphone, 20)
        with running("--workers", "2", "--set", "providers_priority=embedded") as server:
            recording = next(each for each in demo_recordings() if each.name == "beckett")
            done = edgescribe(
                "record",
                str(recording.path),
                server.url,
                "--role",
                "teacher",
                "--session-id",
                "interview",
                "--speed",
                "4",
                timeout_s=90,
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            async with browsing(microphone) as browser:
                await pictures(browser, server)
    for image in sorted(IMAGES.glob("console-*.png")):
        print(f"{image.relative_to(Path.cwd())} {os.path.getsize(image)} bytes")


if __name__ == "__main__":
    asyncio.run(main())
