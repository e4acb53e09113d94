"""Who said it: the teacher by what is known of people, students by their voices.

Comes in: utterances of the teacher and of students as they become final, and recordings that
clients ask about. Goes out: speaker events in the log, and voices and their names in the records.
Nothing waits for it: an utterance is there whatever becomes of its speaker.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from functools import partial
from typing import Literal
from weakref import WeakValueDictionary

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from edge.errors import (
    Conflict,
    EdgescribeError,
    InferenceFailed,
    SessionDeleted,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from edge.logs import get_logger
from edge.meeting import audio
from edge.meeting.book import CAPTURES, INGEST, PEOPLE, VOICES, Book
from edge.meeting.inference import Audio, Inference, ResolveAnswer, ResolveRequest
from edge.meeting.names import teacher_identity
from edge.meeting.people import parse_roster
from edge.meeting.records import (
    RATE_HZ,
    Evidence,
    Ingest,
    People,
    Person,
    Role,
    SpeakerSaid,
    Utterance,
    Voices,
    encode,
    iso,
)
from edge.meeting.status import SpeakerState, speaker_state
from edge.meeting.wav import wav
from edge.objects.interface import ObjectStore
from edge.session.entries import SpeakerEntry, encode_entry
from edge.session.store.interface import MAX_PAGE, Draft, SessionStore

MOST_ASKS = 3
"""How often the service is asked about one recording when others change the voices meanwhile."""
MOST_SECONDS = 30
MOST_CHARS = 4000
"""Of a recording and of what was heard in it: the limits of the service."""
PATIENCE_S = 120.0
"""How long an utterance waits for its speaker when the service asks for patience."""
MOST_PENDING = 500
"""Utterances of a worker that wait for their speakers; those beyond get none."""
KEEP_TRYING_S = 15.0
"""How long a store that is away is asked again for an event."""
TEACHER = "teacher"

_log = get_logger("edge.meeting.resolve")

Roster = tuple[Person, ...]


class ResolveBody(Struct, frozen=True, kw_only=True):
    """What a client asks: whose voice is this?"""

    audio: Audio
    asr_text: str | None = None
    roster: list[object] | None = None
    """Replaces the meeting's, unless it is empty."""


class Resolved(Struct, frozen=True, kw_only=True):
    """Whose voice it is, and all that is known of voices and people now."""

    session_id: str
    cluster_id: str
    speaker_name: str | None
    decision: Literal["auto", "confirm", "unknown"]
    evidence: Evidence | None
    updated_state: SpeakerState


class Speakers:
    """One worker's way to who said what; all methods may be cancelled."""

    def __init__(
        self, book: Book, store: SessionStore, objects: ObjectStore, inference: Inference
    ) -> None:
        self._book = book
        self._store = store
        self._objects = objects
        self._inference = inference
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One voice of a session after the other, so that each knows those before it."""
        self._pending = 0

    async def said(self, session: str, utterance: Utterance) -> None:
        """Log who said an utterance; raises nothing, and may take minutes for students."""
        if utterance.stream_role == "mixed" or not utterance.text.strip():
            return
        turn = self._turns.setdefault(session, asyncio.Lock())
        self._pending += 1
        try:
            if utterance.stream_role == "teacher":
                await self.teacher_said(session, utterance)
            elif self._pending > MOST_PENDING:
                await self._failed(session, utterance, "too many utterances wait for theirs")
            else:
                async with turn:
                    await self.students_said(session, utterance)
        except SessionDeleted:
            return
        except StoreError as error:
            _log.warning("a speaker event is lost", session=session, reason=str(error))
        finally:
            self._pending -= 1

    async def teacher_said(self, session: str, utterance: Utterance) -> None:
        """Log the name of the teacher with an utterance; raises what the store raises."""
        people: People = await _patient()(self._book.read, session, PEOPLE)
        roster = () if people.roster is UNSET else people.roster
        name, source = teacher_identity(roster, people.config, utterance.text)
        await self._note(
            session,
            SpeakerSaid(
                ts=iso(),
                stream_role="teacher",
                source="teacher_direct",
                identity_source=source,
                utterance_id=utterance.utterance_id,
                cluster_id=TEACHER,
                speaker_name=name,
                decision="auto",
                note=f"the teacher's stream of session {session}",
            ),
        )

    async def students_said(self, session: str, utterance: Utterance) -> None:
        """Log whose voice an utterance is; raises what the store raises.

        A failure is logged as an event that says so; the voices are as before then.
        """
        try:
            recording = await self._recording(session, utterance)
            answer, resolved = await self._ask(
                session, recording, utterance.text[:MOST_CHARS], None, PATIENCE_S
            )
        except StoreError:
            raise
        except EdgescribeError as error:
            await self._failed(session, utterance, str(error))
            return
        await self._note(session, _event("students", answer, resolved, utterance.utterance_id))

    async def resolve(self, session: str, role: Role, body: ResolveBody) -> Resolved:
        """Whose voice a recording is; ``role`` only labels the event.

        Raises ``InferenceFailed`` (nothing was changed), and what the store raises.
        """
        roster = parse_roster(body.roster) or None
        answer, resolved = await self._ask(session, body.audio, body.asr_text, roster, 0.0)
        await self._note(session, _event(role, answer, resolved, None))
        return resolved

    async def _recording(self, session: str, utterance: Utterance) -> Audio:
        role, first = utterance.stream_role, utterance.start_seq
        last = min(utterance.end_seq, first + MOST_SECONDS - 1)
        ingest: Ingest = await _patient()(self._book.read, session, INGEST[role])
        piece = await audio.read(self._objects, session, role, ingest, first, last)
        if len(piece.missing) == last - first + 1 or not piece.pcm:
            raise InferenceFailed("none of its audio is stored")
        return Audio(
            content_b64=base64.b64encode(wav(piece.pcm)).decode(),
            format="wav",
            sample_rate=RATE_HZ,
            channels=1,
        )

    async def _ask(
        self,
        session: str,
        recording: Audio,
        text: str | None,
        roster: Roster | None,
        patience_s: float,
    ) -> tuple[ResolveAnswer, Resolved]:
        """Ask with the voices of now, and keep the answer's only if nobody changed them since."""
        for _ in range(MOST_ASKS):
            known = await self._book.look(session, VOICES)
            people = await self._book.read(session, PEOPLE)
            captures = await self._book.read(session, CAPTURES)
            sent = replace(people, roster=roster) if roster else people
            ask = ResolveRequest(
                session_id=session,
                audio=recording,
                asr_text=text,
                state=speaker_state(sent, known.value, captures),
            )
            answer = await self._inference.resolve(ask, patience_s)
            updated = answer.updated_state
            voices = Voices(clusters=updated.clusters, bindings=updated.bindings, updated_at=iso())
            try:
                await self._book.write(session, VOICES, voices, known.version)
            except Conflict:
                continue
            adopt = partial(
                _adopt, sent=people.roster, asked=roster, echoed=_usable(updated.roster)
            )
            people = (await self._book.change(session, PEOPLE, adopt)).value
            captures = await self._book.read(session, CAPTURES)
            return answer, Resolved(
                session_id=session,
                cluster_id=answer.cluster_id,
                speaker_name=_name(answer),
                decision=answer.decision,
                evidence=answer.evidence,
                updated_state=speaker_state(people, voices, captures),
            )
        raise InferenceFailed("The voices of this session changed during every call; ask again")

    async def _failed(self, session: str, utterance: Utterance, why: str) -> None:
        await self._note(
            session,
            SpeakerSaid(
                ts=iso(),
                stream_role="students",
                source="inference_resolve",
                identity_source="inference_resolve",
                utterance_id=utterance.utterance_id,
                decision="unknown",
                note=f"the speaker is not known: {why}",
            ),
        )

    async def _note(self, session: str, said: SpeakerSaid) -> None:
        """Log an event once, also when the store's answer to the first attempt is lost."""
        entry = SpeakerEntry(said.stream_role, msgspec.Raw(encode(said)))
        draft = Draft("event", encode_entry(entry))
        async for attempt in _patient():
            with attempt:
                is_first = attempt.retry_state.attempt_number == 1
                if is_first or not await self._is_noted(session, draft.body):
                    await self._store.note(session, [draft])

    async def _is_noted(self, session: str, body: bytes) -> bool:
        head = await self._store.head(session)
        if head is None:
            return False
        page = await self._store.read(session, max(0, head.head - MAX_PAGE))
        return page is not None and any(entry.body == body for entry in page.entries)


def _patient() -> AsyncRetrying:
    """Goes on for a while when the store is away."""
    return AsyncRetrying(
        retry=retry_if_exception_type((StoreBusy, StoreUnavailable)),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        stop=stop_after_delay(KEEP_TRYING_S),
        reraise=True,
    )


def _adopt(
    people: People, *, sent: Roster | UnsetType, asked: Roster | None, echoed: Roster
) -> People:
    """The people after an answer: a roster that was asked with is the meeting's, as the service
    gives it back; another one only when nobody changed it meanwhile."""
    if asked is None and people.roster != sent:
        return people
    roster = echoed or asked
    if not roster or roster == people.roster:
        return people
    return replace(people, roster=roster, updated_at=iso())


def _usable(roster: Sequence[Person] | UnsetType | None) -> Roster:
    if roster is UNSET or roster is None:
        return ()
    return tuple(person for person in roster if person.name.strip())


def _name(answer: ResolveAnswer) -> str | None:
    """The name given, else that of the cluster."""
    state, cluster = answer.updated_state, answer.cluster_id
    names = [answer.speaker_name, state.bindings.get(cluster)]
    names += [each.bound_name or None for each in state.clusters if each.cluster_id == cluster]
    return next(filter(None, names), None)


def _event(
    role: Role, answer: ResolveAnswer, resolved: Resolved, utterance_id: str | None
) -> SpeakerSaid:
    return SpeakerSaid(
        ts=iso(),
        stream_role=role,
        source="inference_resolve",
        identity_source="inference_resolve",
        utterance_id=utterance_id,
        cluster_id=answer.cluster_id,
        speaker_name=resolved.speaker_name,
        decision=answer.decision,
        evidence=answer.evidence,
    )
