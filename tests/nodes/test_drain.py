"""A stop under load: what was said is told or kept, and clients know what to do."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from edge.ingest.session_audio import audio_frame
from edge.session.store.opening import open_store
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.tones import WORD_MS, WORDS, tone
from tests.ingest.support.listen import Page
from tests.ingest.support.media import MediaClient, openai_environment
from tests.nodes.support.checker import log_of, text_of
from tests.nodes.support.clients import SUBPROTOCOL
from tests.support.server import STOP_WITHIN_S, running

SPEAKERS = 30
PLAIN = 20
BRIDGES = 2
TAGS = 25
TRACKS = SPEAKERS + PLAIN + BRIDGES * TAGS
FRAME_MS = 100


class Speaker:
    """A speaker of ``edge.session.v1`` that says one word, without a pause behind it."""

    def __init__(self, socket: ClientConnection, word: str) -> None:
        self._socket = socket
        self._word = word
        self.told = ""
        self.was_warned = False
        self.code: int | None = None

    async def run(self) -> None:
        await self._socket.send(json.dumps({"type": "hello", "role": "speaker"}))
        pcm = tone(self._word, 16000)
        size = 32 * FRAME_MS
        for number in range(WORD_MS // FRAME_MS):
            piece = pcm[number * size : (number + 1) * size]
            await self._socket.send(audio_frame(number + 1, number * FRAME_MS, piece))
        try:
            while True:
                message = json.loads(await self._socket.recv())
                self.was_warned |= message["type"] == "drain"
                if message["type"] == "part" and message["stable"]:
                    self.told = message["text"]
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd else 1006


async def test_a_stop_with_a_hundred_tracks_loses_no_final(tmp_path: Path) -> None:
    """Pages get ``drain`` and 1012, plain ones and media servers 1001; it is over within 25 s."""
    store = str(tmp_path / "sessions.db")
    words = [WORDS[number % len(WORDS)] for number in range(max(SPEAKERS, PLAIN, TAGS))]
    async with FakeOpenAI() as service, AsyncExitStack() as stack:
        settings = openai_environment(service, EDGESCRIBE_STORE=store)
        with running("--workers", "2", environment=settings) as server:
            listen = f"ws://{server.address}/listen?session=pages&speaker="
            pages = [
                Speaker(
                    await stack.enter_async_context(
                        connect(f"{listen}{number}", subprotocols=[SUBPROTOCOL], proxy=None)
                    ),
                    word,
                )
                for number, word in enumerate(words[:SPEAKERS])
            ]
            talking = [asyncio.create_task(page.run()) for page in pages]
            plain_url = f"ws://{server.address}/listen?session=plain&speaker="
            plain = [
                Page(await stack.enter_async_context(connect(f"{plain_url}{number}", proxy=None)))
                for number in range(PLAIN)
            ]
            for page, word in zip(plain, words, strict=False):
                await page.say(word, pause_ms=0)
            media = f"ws://{server.address}/transcribe?sendBack=true&sessionId=bridge-"
            bridges = [
                MediaClient(
                    await stack.enter_async_context(connect(f"{media}{number}", proxy=None))
                )
                for number in range(BRIDGES)
            ]
            for bridge in bridges:
                for tag in range(TAGS):
                    await bridge.say(str(tag), words[tag], pause_ms=0)
            async with asyncio.timeout(20):
                while sum(each.audio_ms >= WORD_MS - 100 for each in service.connections) < TRACKS:
                    await asyncio.sleep(0.02)
            began_s = time.monotonic()
            server.send_signal(signal.SIGTERM)
            await asyncio.wait(talking, timeout=STOP_WITHIN_S)
            closes = [await client.closed(STOP_WITHIN_S) for client in (*bridges, *plain)]
            assert await asyncio.to_thread(server.wait) == 0
            assert time.monotonic() - began_s < STOP_WITHIN_S
    assert {page.code for page in pages} == {1012} and all(page.was_warned for page in pages)
    assert {code for code, _ in closes} == {1001}
    async with open_store(store) as opened:
        _, entries = await log_of(opened, "pages")
        logged = {e.track: text_of(e) for e in entries if e.kind == "final"}
        assert logged == {str(number): words[number] for number in range(SPEAKERS)}
        _, entries = await log_of(opened, "plain")
        logged = {e.track: text_of(e) for e in entries if e.kind == "final"}
        assert logged == {str(number): words[number] for number in range(PLAIN)}
        assert {str(number): page.texts for number, page in enumerate(plain)} == {
            speaker: [word] for speaker, word in logged.items()
        }
        for number, bridge in enumerate(bridges):
            _, entries = await log_of(opened, f"bridge-{number}")
            logged = {e.track: text_of(e) for e in entries if e.kind == "final"}
            assert logged == {str(tag): words[tag] for tag in range(TAGS)}
            assert {tag: bridge.text(tag) for tag in logged} == logged
