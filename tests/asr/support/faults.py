"""Faults of a recognizer's service at any moment of a talk, and what becomes of its words.

A talk is a few sentences of tones that each stand for a word. It is spoken through Opus packets, a
track, a supervisor and a recognizer to a fake of the vendor's service, once undisturbed and once
with a fault; both texts have to be the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from difflib import SequenceMatcher
from functools import cache
from typing import Any, Protocol

import msgspec

from edge.asr.breaker import Breakers
from edge.asr.interface import Recognizer, StreamRequest
from edge.asr.supervisor import Supervisor, SupervisorSettings
from edge.audio.settings import TrackSettings
from edge.audio.track import AudioTrack
from tests.asr.support.proxy import CLOSE_1011, CLOSE_WITHOUT_CODE, Proxy
from tests.asr.support.supervision import Counts, Listener, until
from tests.asr.support.tones import FRAME_MS, WORDS, packets, sentence, silence

SENTENCES = 5
TALKS = 8
"""Different ones."""
PAUSE_MS = 600
TIMES_REAL = 20.0
"""How much faster than real time a talk is spoken."""
AHEAD_S = 0.005
"""Packets of so much time are sent at once."""
SETTINGS = SupervisorSettings(
    retry_initial_s=0.02,
    retry_max_s=0.1,
    connect_timeout_s=0.3,
    stable_after_s=0.3,
    breaker_open_s=0.1,
    force_commit_timeout_s=0,
    recognizer_silent_s=0.2,
    recognizer_idle_s=0,
)
"""A tenth of the times that are usual, or less."""
FINISH_S = 10.0


class Endpoint(Protocol):
    """A fake of a vendor's service."""

    @property
    def url(self) -> str:
        """Its address."""
        ...


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """A recognizer and the fake of its service."""

    name: str
    endpoint: Callable[[random.Random], AbstractAsyncContextManager[Endpoint]]
    """Makes a fake that takes a little time for its answers."""
    recognizer: Callable[[str], Recognizer]
    """Makes the recognizer for an address."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run."""

    kind: str
    seed: int
    lost: int
    doubled: int
    recovery_s: float | None
    """From the fault to the next connection that was accepted."""
    connections: int


class Talk(msgspec.Struct, frozen=True):
    """What is said, in packets of 20 ms."""

    words: str
    packets: tuple[bytes, ...]
    pauses: tuple[int, ...]
    """Numbers of the packets amid the pauses between the sentences."""


@cache
def talk(number: int) -> Talk:
    """One of ``TALKS`` talks."""
    chance = random.Random(number)
    pcm = b""
    words: list[str] = []
    pauses = []
    for _ in range(SENTENCES):
        first = len(words)
        for _ in range(chance.randint(1, 4)):
            words.append(chance.choice([word for word in WORDS if word not in words[-1:]]))
        pcm += sentence(" ".join(words[first:]), 48000) + silence(PAUSE_MS, 48000)
        pauses.append(len(pcm) // (96 * FRAME_MS) - PAUSE_MS // FRAME_MS // 2)
    return Talk(" ".join(words), tuple(packets(pcm)), tuple(pauses))


class Scene:
    """A track, its supervisor, a recognizer, its service, and the network between the two."""

    def __init__(self, vendor: Vendor, backup: Vendor, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counts = TimedCounts()
        self.listener = Listener()
        self.track = AudioTrack(TrackSettings())
        self.settings = SETTINGS
        self._vendors = (vendor, backup)
        self._stack = AsyncExitStack()
        self._chunk = 0
        self.fault_s: float | None = None
        self.proxy: Proxy
        self.supervisor: Supervisor

    async def __aenter__(self) -> Scene:
        vendor, backup = self._vendors
        enter = self._stack.enter_async_context
        self.proxy = await enter(Proxy((await enter(vendor.endpoint(self.chance))).url))
        recognizers = [vendor.recognizer(self.proxy.url)]
        if backup is not vendor:
            other = await enter(backup.endpoint(self.chance))
            recognizers.append(backup.recognizer(other.url))
        self.supervisor = Supervisor(
            self.track,
            recognizers,
            Breakers(self.settings),
            self.settings,
            StreamRequest(track="talk"),
            self.listener,
            self.counts,
        )
        self.supervisor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.abort()
        await self._stack.aclose()

    async def speak(self, spoken: Talk, until_packet: int) -> None:
        """Say the next packets, as fast as ``TIMES_REAL`` allows."""
        started_s, first = time.monotonic(), self._chunk
        while self._chunk < until_packet:
            number = self._chunk
            self.track.packet(number, number * 960, spoken.packets[number], time.monotonic())
            self._chunk += 1
            due_s = started_s + (self._chunk - first) * FRAME_MS / 1000 / TIMES_REAL
            if due_s - time.monotonic() > AHEAD_S:
                await asyncio.sleep(due_s - time.monotonic())

    def fail(self) -> None:
        """The fault is now."""
        self.fault_s = time.monotonic()

    @property
    def recovery_s(self) -> float | None:
        """See ``Outcome``."""
        if self.fault_s is None:
            return None
        later = [at_s for at_s in self.counts.connected_s if at_s > self.fault_s]
        return later[0] - self.fault_s if later else None


class TimedCounts(Counts):
    """Also knows when."""

    def __init__(self) -> None:
        super().__init__()
        self.connected_s: list[float] = []

    def connected(self, provider: str, seconds: float) -> None:
        super().connected(provider, seconds)
        self.connected_s.append(time.monotonic())


async def drop(scene: Scene) -> None:
    for route in list(scene.proxy.routes):
        route.drop()


async def silent_stall(scene: Scene) -> None:
    for route in scene.proxy.routes:
        route.mute()


async def close_without_code(scene: Scene) -> None:
    for route in scene.proxy.routes:
        route.say(CLOSE_WITHOUT_CODE)


async def close_1011(scene: Scene) -> None:
    for route in scene.proxy.routes:
        route.say(CLOSE_1011)


async def busy_then_accept(scene: Scene) -> None:
    scene.proxy.refusals.extend([429] * scene.chance.randint(1, 3))
    await drop(scene)


async def slow_handshake(scene: Scene) -> None:
    scene.proxy.delays_s.append(scene.chance.uniform(0, 2 * SETTINGS.connect_timeout_s))
    await drop(scene)


async def fail_over(scene: Scene) -> None:
    scene.proxy.refuse_all = scene.chance.choice((401, 503))
    await drop(scene)


async def partition(scene: Scene) -> None:
    for route in scene.proxy.routes:
        route.part()
    scene.proxy.parted.clear()
    asyncio.get_running_loop().call_later(scene.chance.uniform(0, 0.6), scene.proxy.parted.set)


async def drop_twice(scene: Scene) -> None:
    """The second time while the first is being made up for."""
    made = len(scene.counts.connected_s)
    await drop(scene)
    await until(lambda: len(scene.counts.connected_s) > made)
    await asyncio.sleep(scene.chance.uniform(0, 0.03))
    await drop(scene)


Fault = Callable[[Scene], Any]
FAULTS: dict[str, Fault] = {
    "drop": drop,
    "silent stall": silent_stall,
    "close without code": close_without_code,
    "close 1011": close_1011,
    "429, then accept": busy_then_accept,
    "slow handshake": slow_handshake,
    "fail-over": fail_over,
    "network partition": partition,
    "drop twice": drop_twice,
}
IDLE, DRAIN, DRAIN_DROP = "idle close", "worker drain", "drop while draining"
KINDS = (*FAULTS, IDLE, DRAIN, DRAIN_DROP)


async def disturbed(vendor: Vendor, backup: Vendor, kind: str, seed: int) -> Outcome:
    """One talk with one fault, and what it lost and doubled."""
    chance = random.Random(f"{kind} {seed}")
    number = seed % TALKS
    spoken = talk(number)
    at = chance.randrange(len(spoken.packets))
    end = len(spoken.packets)
    scene = Scene(vendor, backup if kind == "fail-over" else vendor, chance.randrange(1 << 30))
    if kind in (DRAIN, DRAIN_DROP):
        end = at = max(at, 1)
    if kind == IDLE:
        at = chance.choice(spoken.pauses) + chance.randint(-14, 14)
        scene.settings = msgspec.structs.replace(SETTINGS, recognizer_idle_s=0.1)
    async with scene:
        await scene.speak(spoken, at)
        await until(lambda: scene.counts.connected_s)
        if kind == IDLE:
            await until(lambda: not scene.counts.open)
            scene.fail()
        elif kind in FAULTS:
            scene.fail()
            fault = asyncio.ensure_future(FAULTS[kind](scene))
            await scene.speak(spoken, end)
            await fault
        await scene.speak(spoken, end)
        finishing = asyncio.ensure_future(scene.supervisor.finish(FINISH_S))
        if kind == DRAIN_DROP:
            await asyncio.sleep(chance.uniform(0, 0.08))
            scene.fail()
            await drop(scene)
        await finishing
        lost, doubled = difference(await undisturbed(vendor, number, end), scene.listener.text)
        return Outcome(
            kind=kind,
            seed=seed,
            lost=lost,
            doubled=doubled,
            recovery_s=scene.recovery_s,
            connections=len(scene.counts.connected_s),
        )


_texts: dict[tuple[str, int, int], str] = {}


async def undisturbed(vendor: Vendor, number: int, end: int) -> str:
    """The text of the first ``end`` packets of a talk if nothing happens."""
    key = (vendor.name, number, end)
    if key not in _texts:
        async with Scene(vendor, vendor, number) as scene:
            await until(lambda: scene.counts.connected_s)
            await scene.speak(talk(number), end)
            await scene.supervisor.finish(FINISH_S)
            _texts[key] = scene.listener.text
        assert end < len(talk(number).packets) or _texts[key] == talk(number).words
    return _texts[key]


def difference(expected: str, got: str) -> tuple[int, int]:
    """Words lost, and words that are there once too often."""
    matcher = SequenceMatcher(None, expected.split(), got.split(), autojunk=False)
    same = sum(block.size for block in matcher.get_matching_blocks())
    return len(expected.split()) - same, len(got.split()) - same
