"""A worker's services for meetings whose audio is stored already; no sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from edge.asr.interface import Recognizer
from edge.meeting.book import ASR, INGEST, Book
from edge.meeting.finalize import Finalizer
from edge.meeting.keys import chunk_key
from edge.meeting.records import CHUNK_BYTES, Asr, Ingest, Role, Utterance
from edge.meeting.settings import MeetingSettings
from edge.meeting.status import Recognition, Standings
from edge.meeting.view import Views
from edge.meeting.windows import Windows
from edge.objects.files import FileStore
from edge.objects.interface import ObjectStore
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store

SESSION = "面试 1"
"""Ids are any text."""


class Worker:
    """What one worker has of meetings."""

    def __init__(
        self,
        store: SessionStore,
        objects: ObjectStore,
        recognizers: Sequence[Recognizer],
        settings: MeetingSettings,
        lease_s: float,
    ) -> None:
        self.store = store
        self.objects = objects
        self.settings = settings
        self.book = Book(store)
        self.views = Views(store)
        self.said: list[Utterance] = []
        self.recognizers = {recognizer.name: recognizer for recognizer in recognizers}
        self.windows = Windows(
            store, objects, self.views, settings, self._choices, self._model_of, self.said.append
        )
        self.finalizer = Finalizer(
            store,
            objects,
            Standings(store, self.views, self._recognition),
            self.windows,
            settings,
            lease_s=lease_s,
        )

    def _choices(self, provider: str) -> Sequence[Recognizer]:
        return (self.recognizers[provider],) if provider else [*self.recognizers.values()]

    def _model_of(self, provider: str) -> str:
        return f"model of {provider}"

    def _recognition(self, provider: str) -> Recognition:
        return Recognition(
            enabled=True,
            provider=provider,
            model=self._model_of(provider),
            mode="realtime" if self.settings.asr_realtime_enabled else "windowed",
            window_seconds=self.settings.asr_window_seconds,
            hop_seconds=self.settings.asr_hop_seconds,
        )

    def dispatch(self, posted: Callable[[], None]) -> None:
        """From now on what windows say waits in the outbox, and ``posted`` is called."""
        self.windows = Windows(
            self.store,
            self.objects,
            self.views,
            self.settings,
            self._choices,
            self._model_of,
            self.said.append,
            posted,
        )

    async def speak(
        self,
        pcm: bytes,
        role: Role = "teacher",
        *,
        session: str = SESSION,
        without: Collection[int] = (),
    ) -> None:
        """Store audio as the role's next chunks, but for some; the last one may be short."""
        last = (await self.book.read(session, INGEST[role])).last_seq
        missing: list[tuple[int, int]] = []
        short: tuple[int, int] | None = None
        for start in range(0, len(pcm), CHUNK_BYTES):
            last += 1
            body = pcm[start : start + CHUNK_BYTES]
            short = (last, len(body)) if len(body) < CHUNK_BYTES else None
            if last in without:
                missing.append((last, last))
            else:
                await self.objects.put(chunk_key(session, role, last), body)

        def count(ingest: Ingest) -> Ingest:
            return msgspec.structs.replace(
                ingest,
                last_seq=last,
                received_chunks=last,
                missing=(*ingest.missing, *missing),
                short=short,
            )

        await self.book.change(session, INGEST[role], count)

    async def asr(self, role: Role = "teacher", session: str = SESSION) -> Asr:
        """The role's record."""
        return await self.book.read(session, ASR[role])

    async def raw(self, role: Role = "teacher", session: str = SESSION) -> Sequence[Utterance]:
        """What the log says."""
        return (await Views(self.store).of(session)).raw(role)

    async def spans(self, role: Role = "teacher") -> list[tuple[int, int]]:
        """First and last chunk of each utterance."""
        return [(each.start_seq, each.end_seq) for each in await self.raw(role)]


@asynccontextmanager
async def worker(
    folder: Path, *recognizers: Recognizer, lease_s: float = 30.0, **settings: object
) -> AsyncIterator[Worker]:
    """A worker; several of one folder share what they store."""
    chosen = msgspec.convert(settings, MeetingSettings)
    async with (
        open_store(str(folder / "sessions.db")) as store,
        FileStore(folder / "objects") as objects,
    ):
        made = Worker(store, objects, recognizers, chosen, lease_s)
        try:
            yield made
        finally:
            await made.windows.stop()
