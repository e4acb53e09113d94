"""A real headless Chromium, driven over the DevTools protocol by the ``websockets`` package."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_WITHIN_S = 20.0
ANSWER_WITHIN_S = 20.0


def chromium() -> str:
    """The browser's program; fails and says what to do where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise AssertionError("the tests of edge/web need Chromium: apt-get install chromium")


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self.session = session

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited; raises ``AssertionError`` with what it threw."""
        answer = await self._browser.call(
            "Runtime.evaluate",
            self.session,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if problem := answer.get("exceptionDetails"):
            thrown = problem.get("exception", {})
            raise AssertionError(thrown.get("description") or thrown.get("value") or problem)
        return answer["result"].get("value")

    async def until(self, script: str, within_s: float = 10.0) -> Any:
        """Wait for an expression to become true, and return it."""
        found = await self.run(
            f"""(async () => {{
                const end = performance.now() + {within_s * 1000};
                for (;;) {{
                    const found = {script};
                    if (found) return found;
                    if (performance.now() > end) return null;
                    await new Promise((resolve) => setTimeout(resolve, 20));
                }}
            }})()"""
        )
        assert found is not None, f"not within {within_s:g} s: {script}"
        return found


class Browser:
    """The connection to a running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def open(self, url: str) -> Page:
        """A tab of its own, once ``url`` is its address."""
        target = await self.call("Target.createTarget", url=url)
        identity = target["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=identity, flatten=True)
        page = Page(self, attached["sessionId"])
        # Short questions only: a page that is still to be left takes its answers with it.
        is_there = f"location.href === {json.dumps(url)} && document.readyState === 'complete'"
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while not await page.run(is_there):
                await asyncio.sleep(0.02)
        return page

    async def call(self, method: str, session: str = "", /, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        request: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(request))
        async with asyncio.timeout(ANSWER_WITHIN_S):
            answer = await answered
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    async def close(self) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._socket.recv())
                waiting = self._answers.pop(message.get("id", 0), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)


@asynccontextmanager
async def browsing(microphone: Path | None = None) -> AsyncIterator[Browser]:
    """A browser whose microphone, given one, hears a WAV file once, from when it is opened."""
    program = chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-background-timer-throttling",
            "--disable-renderer-backgrounding",
            "--disable-backgrounding-occluded-windows",
            "--no-first-run",
            "--no-default-browser-check",
            "--autoplay-policy=no-user-gesture-required",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--user-data-dir={folder}",
            "--remote-debugging-port=0",
        ]
        if microphone is not None:
            arguments.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            "about:blank",
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
        )
        try:
            url = await _debugger(process, Path(folder) / "DevToolsActivePort")
            browser = Browser(await connect(url, max_size=None, proxy=None))
            yield browser
            with suppress(ConnectionClosed, TimeoutError, AssertionError):
                await browser.call("Browser.close")
            await browser.close()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await process.wait()
            _kill_group(process)
            await process.wait()


async def _debugger(process: Process, announced: Path) -> str:
    async with asyncio.timeout(START_WITHIN_S):
        while True:
            assert process.returncode is None, f"Chromium ended with status {process.returncode}"
            with suppress(OSError, ValueError):
                port, path = announced.read_text().split()
                return f"ws://127.0.0.1:{port}{path}"
            await asyncio.sleep(0.05)


def _kill_group(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
