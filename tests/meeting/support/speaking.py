"""A worker's services for speakers; the service that tells voices apart is the stub."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from edge.meeting.book import INGEST, VOICES, Book
from edge.meeting.inference import Inference
from edge.meeting.keys import chunk_key
from edge.meeting.records import CHUNK_BYTES, Ingest, Role, SpeakerSaid, Utterance
from edge.meeting.resolve import ResolveBody, Speakers
from edge.meeting.settings import MeetingSettings
from edge.meeting.view import Views
from edge.meeting.wav import wav
from edge.objects.interface import ObjectStore
from edge.objects.opening import open_objects
from edge.objects.settings import ObjectSettings
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from tests.meeting.support.service import VoiceService
from tests.meeting.support.tones import LOW_HZ, voice
from tests.meeting.support.utterances import said

SESSION = "s"


class Worker:
    """What one worker has of speakers."""

    def __init__(self, store: SessionStore, objects: ObjectStore, service: VoiceService) -> None:
        self.store = store
        self.objects = objects
        self.service = service
        self.book = Book(store)
        self.inference = Inference(
            MeetingSettings(inference_base_url=service.url, inference_timeout_ms=5000)
        )
        self.speakers = Speakers(self.book, store, objects, self.inference)

    async def speak(self, pcm: bytes, without: Sequence[int] = (), role: Role = "students") -> None:
        """Store audio as the role's next chunks, but for some."""
        first = (await self.book.read(SESSION, INGEST[role])).last_seq
        count = len(pcm) // CHUNK_BYTES
        for index in range(count):
            if (seq := first + 1 + index) not in without:
                body = pcm[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                await self.objects.put(chunk_key(SESSION, role, seq), body)

        def stored(ingest: Ingest) -> Ingest:
            missing = tuple((seq, seq) for seq in without)
            return replace(ingest, last_seq=first + count, missing=(*ingest.missing, *missing))

        await self.book.change(SESSION, INGEST[role], stored)

    async def events(self, role: Role | None = None) -> list[SpeakerSaid]:
        """What the log says."""
        return list((await Views(self.store).of(SESSION)).events(role))

    async def clusters(self) -> dict[str, int]:
        """How often each voice was heard."""
        voices = await self.book.read(SESSION, VOICES)
        return {each.cluster_id: each.sample_count for each in voices.clusters}


@asynccontextmanager
async def speaking(folder: Path) -> AsyncIterator[Worker]:
    """A worker with a store, objects and a service of its own."""
    async with (
        VoiceService() as service,
        open_store(str(folder / "sessions.db")) as store,
        open_objects(ObjectSettings(), folder) as objects,
    ):
        made = Worker(store, objects, service)
        await made.inference.start()
        yield made
        await made.inference.stop()


def teacher_says(text: str, number: int = 0) -> Utterance:
    """An utterance of the teacher."""
    return replace(said(1, 2, text, number), stream_role="teacher")


def recording(pitch_hz: float = LOW_HZ, **changes: Any) -> ResolveBody:
    """What a client asks about."""
    content = base64.b64encode(wav(voice(pitch_hz))).decode()
    body = {"audio": {"content_b64": content, "format": "wav"}, **changes}
    return msgspec.convert(body, ResolveBody)
