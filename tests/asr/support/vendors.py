"""Recognizers and the fakes of their services, for what every recognizer has to survive."""

from __future__ import annotations

from random import Random

from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from tests.asr.fakes.openai_endpoint import FakeOpenAI
from tests.asr.support.faults import Vendor
from tests.asr.support.supervision import openai

SLOWEST_S = 0.06
"""The longest a fake thinks about an utterance."""


class Backup(Recognizer):
    """The OpenAI recognizer under another name, as the next in line."""

    name = "backup"
    times = "exact"

    def __init__(self, url: str) -> None:
        self._inner = openai(url)

    @property
    def wants(self) -> AudioWanted:
        return self._inner.wants

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        return await self._inner.open(request, emit)


def _fake_openai(chance: Random) -> FakeOpenAI:
    return FakeOpenAI(delay_s=lambda item: chance.uniform(0, SLOWEST_S))


OPENAI = Vendor(name="openai", endpoint=_fake_openai, recognizer=openai)
BACKUP = Vendor(name="backup", endpoint=_fake_openai, recognizer=Backup)

VENDORS: dict[str, tuple[Vendor, Vendor]] = {
    "openai": (OPENAI, BACKUP),
}
"""Each with the one that takes over from it."""
