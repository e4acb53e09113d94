"""How live recognition fares, written down after the fact: nobody waits for it.

Comes in: utterances, failures. Goes out: the ``Asr`` records of roles. What cannot be written at
once is written together with what follows, and lost with the worker: it is about the past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from edge.errors import StoreError
from edge.logs import Repeats, get_logger
from edge.meeting.book import ASR, Book
from edge.meeting.records import MAX_SAMPLES, Asr, RecognizerState, Role, Utterance, iso
from edge.meeting.spans import Span, heard

MOST_WAITING = 1000
"""Changes of one role that wait for the store; further ones are left out."""

_log = get_logger("edge.meeting.progress")

Change = Callable[[Asr], Asr]


class Progress:
    """One worker's; owns the tasks that write, until ``stop``."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._waiting: dict[tuple[str, Role], list[Change]] = {}
        self._tasks: dict[asyncio.Task[None], tuple[str, Role]] = {}
        self._repeats = Repeats(_log)

    async def stop(self) -> None:
        """Return when all is written, or cannot be."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._repeats.summarize()

    async def written(self, session: str, role: Role) -> None:
        """Return when what was told of a role is written, or cannot be."""
        if tasks := [task for task, key in self._tasks.items() if key == (session, role)]:
            await asyncio.wait(tasks)

    def heard(self, said: Utterance, sent_seq: int) -> None:
        """A live recognizer has said something."""
        latency_ms = said.latency_ms or 0
        span = Span(said.start_seq, said.end_seq)

        def change(asr: Asr) -> Asr:
            samples = asr.recent_ingest_to_utterance_ms
            if said.latency_ms is not None:
                samples = (*samples, latency_ms)[-MAX_SAMPLES:]
            return replace(
                heard(asr, span, latency_ms),
                asr_ws_state="running",
                sent_seq=max(asr.sent_seq, sent_seq),
                last_emit_at=said.created_at,
                recent_ingest_to_utterance_ms=samples,
            )

        self._later(said.session_id, said.stream_role, change)

    def state(self, session: str, role: Role, state: RecognizerState, error: str = "") -> None:
        """The connection to a live recognizer has changed; ``error``: why it is not there."""

        def change(asr: Asr) -> Asr:
            told = error or (asr.last_error if state != "running" else None)
            return replace(asr, asr_ws_state=state, last_error=told, updated_at=iso())

        self._later(session, role, change)

    def _later(self, session: str, role: Role, change: Change) -> None:
        waiting = self._waiting.get((session, role))
        if waiting is not None:
            if len(waiting) < MOST_WAITING:
                waiting.append(change)
            return
        self._waiting[session, role] = [change]
        task = asyncio.get_running_loop().create_task(self._write(session, role))
        self._tasks[task] = (session, role)
        task.add_done_callback(self._tasks.pop)

    async def _write(self, session: str, role: Role) -> None:
        key = session, role
        try:
            while changes := self._waiting[key]:
                self._waiting[key] = []
                await self._book.change(session, ASR[role], partial(_after, changes))
        except StoreError as error:
            self._repeats.note("how a meeting fares is not written", reason=str(error))
        finally:
            del self._waiting[key]


def _after(changes: list[Change], asr: Asr) -> Asr:
    for change in changes:
        asr = change(asr)
    return asr
