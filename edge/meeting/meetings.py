"""One worker's meetings: all services of this room, made of each other, between start and stop.

Comes in: the stores and the recognizers. Goes out: the services that requests and sockets are
answered with. What follows an utterance, which may take minutes, belongs to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edge.asr.interface import Recognizer
from edge.logs import get_logger
from edge.meeting.book import Book
from edge.meeting.chores import Chores
from edge.meeting.desk import Desks
from edge.meeting.finalize import Finalizer
from edge.meeting.inference import Inference
from edge.meeting.once import Once
from edge.meeting.progress import Progress
from edge.meeting.records import Role, Utterance
from edge.meeting.removal import Removal
from edge.meeting.resolve import Speakers
from edge.meeting.settings import MeetingSettings
from edge.meeting.status import Recognition, Standings
from edge.meeting.view import Views
from edge.meeting.windows import Windows
from edge.objects.interface import ObjectStore
from edge.session.claim import is_held
from edge.session.store.interface import SessionStore

STEPS_DEADLINE_S = 3.0
"""For the speakers of what was said last, when the worker stops."""

SETTLED_WITHIN_S = 3.0
"""For the speakers of what was said last, when a meeting is finalized."""

_log = get_logger("edge.meeting")


class Meetings:
    """The services; ``store`` is open from before ``start`` until after ``stop``."""

    def __init__(
        self,
        settings: MeetingSettings,
        store: SessionStore,
        objects: ObjectStore,
        *,
        recognition: Callable[[str], Recognition],
        choices: Callable[[str], Sequence[Recognizer]],
        model_of: Callable[[str], str],
        posted: Callable[[], None] | None = None,
    ) -> None:
        """``recognition``, ``choices`` and ``model_of`` know what can be done with a recognizer,
        by its name. With ``posted`` what windows say goes to the dispatcher, and it is told that
        something waits. Raises ``SettingError``."""
        self.settings = settings
        self.objects = objects
        self.book = Book(store)
        self.views = Views(store)
        self.once = Once(store)
        self.standings = Standings(store, self.views, recognition)
        self.inference = Inference(settings)
        self.speakers = Speakers(self.book, store, objects, self.inference)
        self.windows = Windows(
            store, objects, self.views, settings, choices, model_of, self.said, posted
        )
        self.finalizer = Finalizer(
            store, objects, self.standings, self.windows, settings, settled=self.settled
        )
        self.removal = Removal(store, objects)
        self.desks = Desks(store, objects, settings.max_seq_jump)
        self.progress = Progress(self.book)
        self.recognition = recognition
        self.chores = Chores(self.finalizer.sweep, self.removal.sweep)
        """What others could not finish; whoever keeps this worker up starts and stops it."""
        self._steps: dict[asyncio.Task[None], str] = {}

    async def start(self) -> None:
        """Acquire what they share; raises ``ObjectError``."""
        await self.objects.open()
        await self.inference.start()

    async def drain(self) -> None:
        """End windows that chunks began, and find out who said what was said last."""
        await self.windows.stop()
        await self.progress.stop()
        if self._steps:
            _, late = await asyncio.wait(self._steps, timeout=STEPS_DEADLINE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            if late:
                _log.warning("utterances are left without a speaker", count=len(late))

    async def stop(self) -> None:
        """Release everything, after the last request and chore."""
        await self.drain()
        await self.inference.stop()
        await self.objects.close()

    def said(self, utterance: Utterance) -> None:
        """Find out who said it; returns at once."""
        task = asyncio.get_running_loop().create_task(
            self.speakers.said(utterance.session_id, utterance)
        )
        self._steps[task] = utterance.session_id
        task.add_done_callback(self._steps.pop)

    async def is_fed(self, session: str, role: Role) -> bool:
        """Whether a socket has a role heard as it is spoken, on whatever worker."""
        return await is_held(self.book.store, session, role)

    async def settled(self, session: str) -> None:
        """Return when it is known who said what was said; a few seconds at most."""
        if tasks := [task for task, name in self._steps.items() if name == session]:
            await asyncio.wait(tasks, timeout=SETTLED_WITHIN_S)
