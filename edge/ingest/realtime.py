"""OpenAI's ``/v1/realtime?intent=transcription``, for clients written for that service.

Audio comes base64 in JSON; the recognizer tells where turns begin and end, or the client commits
them. See docs/front-doors.md for what is different.
"""

from __future__ import annotations

from collections import deque
from urllib.parse import parse_qsl

import msgspec

from edge.ingest.counts import IngestCounts
from edge.ingest.door import CLOSES, Caller, Crowd, full, provider_of
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.listen_query import ListenQuery, parse_listen_query
from edge.ingest.realtime_messages import (
    Append,
    BadEvent,
    BetaItemCreated,
    BetaSessionCreated,
    BetaSessionUpdate,
    BetaSessionUpdated,
    Clear,
    Cleared,
    Commit,
    Committed,
    Completed,
    Delta,
    Details,
    ErrorEvent,
    Failed,
    Item,
    ItemAdded,
    ItemDone,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    Usage,
    decode_event,
    encode,
    new_id,
)
from edge.ingest.realtime_session import MODELS, Session, Terms
from edge.ingest.voice import SampleVoice
from edge.session.attachment import Flushed
from edge.session.interface import SessionHost, SessionRequest, SpokenLine, TagFailure
from edge.transport.interface import Limits

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
"""What browsers offer, beside their key and the version."""
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
BETA_HEADER = "openai-beta"
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Half a minute of PCM at once."""
IDLE_S = 900.0
LEAST_COMMIT_MS = 100.0
KINDS = {"quota": ("insufficient_quota", "insufficient_quota")}
"""How the service calls failures that it knows."""
MOST_COMMITS = 16
"""Turns that wait for their text."""
MOST_UNCOMMITTED = 1000
"""Finals of one turn."""
MOST_OPEN = 64
"""Utterances without a final that are remembered."""


class RealtimeProtocol:
    """Answers upgrades of ``/v1/realtime`` that offer the subprotocol, or do not."""

    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES)

    def __init__(self, counts: IngestCounts, subprotocol: str | None) -> None:
        self._counts = counts
        self._crowd: Crowd = set()
        self.subprotocol = subprotocol

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether it is the path, and the subprotocol."""
        offered = SUBPROTOCOL in request.subprotocols
        return request.path == PATH and offered == (self.subprotocol is not None)

    def accept(self, request: UpgradeRequest, host: SessionHost) -> RealtimeReceiver | Refusal:
        """Validate the query; 400 says what is wrong in the service's form."""
        values = dict(reversed(parse_qsl(request.query, keep_blank_values=True)))
        model = values.get("model", "")
        if values.get("intent", "transcription" if model else "") != "transcription":
            message = "This endpoint transcribes only; connect with ?intent=transcription"
            return _refusal(message, "intent", "invalid_value")
        who = parse_listen_query(request.query)
        if isinstance(who, str):
            return _refusal(who, None, "invalid_value")
        try:
            _provider(host, who.provider or model)
        except LookupError:
            return _refusal(_no_model(host, model), "model", "model_not_found")
        beta = (
            BETA_SUBPROTOCOL in request.subprotocols
            or request.headers.get(BETA_HEADER, "") == "realtime=v1"
        )
        return full(host, self._crowd, who.session, who.speaker) or RealtimeReceiver(
            who, Terms(model=model), host, self._counts, self._crowd, beta=beta
        )


class _Turn(msgspec.Struct):
    """An item in the making."""

    item_id: str
    told: str = ""
    """The text that deltas have told."""
    guess: str = ""
    """The newest interim."""


class _Pending(msgspec.Struct):
    """A turn that the client committed, and that waits for its text."""

    turn: _Turn
    from_ms: float
    until_ms: float
    texts: list[str]


class RealtimeReceiver(Caller):
    """One client's connection."""

    def __init__(
        self,
        who: ListenQuery,
        terms: Terms,
        host: SessionHost,
        counts: IngestCounts,
        crowd: Crowd,
        *,
        beta: bool,
    ) -> None:
        super().__init__(host, counts, crowd)
        self._who = who
        self._terms = terms
        self._beta = beta
        self._id = new_id("sess")
        self._voice = SampleVoice(who.speaker, terms.form)
        self._turns: dict[str, _Turn] = {}
        """By the recognizer's item."""
        self._pending: list[_Pending] = []
        self._uncommitted: deque[str] = deque(maxlen=MOST_UNCOMMITTED)
        """Finals that no commit has asked for."""
        self._committed_ms = 0.0
        """Up to here audio belongs to items."""
        self._previous: str | None = None

    def begin(self) -> None:
        """Greet; the session is opened with the first audio, when its language is known."""
        self.watch(IDLE_S)
        created = BetaSessionCreated if self._beta else SessionCreated
        self._say(created(session=self._terms.shown(self._id, beta=self._beta)))

    def take(self, data: bytes, is_text: bool) -> None:
        """One event."""
        try:
            if not is_text:
                message = "Send events as text; audio is base64 in input_audio_buffer.append"
                raise BadEvent(Details(code="invalid_json", message=message))
            event = decode_event(data)
            match event:
                case Append():
                    self._append(event)
                case SessionUpdate(session):
                    self._update(session, event.event_id)
                case BetaSessionUpdate(session):
                    self._beta = True
                    self._update(session.as_session(), event.event_id)
                case Commit():
                    self._commit(event)
                case Clear():
                    self._clear()
        except BadEvent as problem:
            self._counts.bad_events += 1
            self._say(ErrorEvent(error=problem.details))

    def fail(self, failure: TagFailure) -> None:
        """What waits for its text gets none; then the connection is of no use."""
        kind, code = KINDS.get(failure.code, ("server_error", failure.code))
        details = Details(type=kind, code=code, message=failure.message)
        for pending in self._pending:
            self._say(Failed(item_id=pending.turn.item_id, error=details))
        self._pending.clear()
        self._say(ErrorEvent(error=details))
        self.close(CLOSES.get(failure.code, 1011), failure.message)

    def idle(self) -> None:
        """Say so, and close."""
        message = f"Nothing was sent for {IDLE_S:g} s"
        self._say(ErrorEvent(error=Details(code="session_expired", message=message)))
        self.close(1001, message)

    # What clients ask

    def _update(self, session: Session, event_id: str | None) -> None:
        terms = self._terms.updated(session)
        if terms.model != self._terms.model:
            try:
                _provider(self._host, terms.model)
            except LookupError:
                raise BadEvent(
                    Details(
                        code="model_not_found",
                        message=_no_model(self._host, terms.model),
                        param="session.audio.input.transcription.model",
                        event_id=event_id,
                    )
                ) from None
        if self._attachment is not None and terms.fixed != self._terms.fixed:
            message = "Model, language and format cannot change once audio was sent."
            param = "session.audio.input"
            raise BadEvent(
                Details(code="invalid_value", message=message, param=param, event_id=event_id)
            )
        if terms.format != self._terms.format:
            self._voice = SampleVoice(self._who.speaker, terms.form)
        self._terms = terms
        updated = BetaSessionUpdated if self._beta else SessionUpdated
        self._say(updated(session=terms.shown(self._id, beta=self._beta)))

    def _append(self, event: Append) -> None:
        if self._attachment is None and not self._attach():
            return
        self.feed(self._voice, event.audio)

    def _attach(self) -> bool:
        if not self.is_open:
            return False
        return self.attach(
            SessionRequest(
                session_id=self._who.session or self._id,
                speaker=self._who.speaker,
                provider=_provider(self._host, self._who.provider or self._terms.model),
                language=self._terms.language or self._who.language,
                use_dispatcher=self._who.use_dispatcher,
            ),
            is_named=self._who.session is not None,
        )

    def _commit(self, event: Commit) -> None:
        attachment, sent_ms = self._attachment, self._voice.sent_ms
        buffered_ms = max(0.0, sent_ms - self._committed_ms)
        if attachment is None or buffered_ms < LEAST_COMMIT_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{LEAST_COMMIT_MS:g}ms of audio, but buffer only has {buffered_ms:.2f}ms of audio."
            )
            code = "input_audio_buffer_commit_empty"
            raise BadEvent(Details(code=code, message=message, event_id=event.event_id))
        if len(self._pending) >= MOST_COMMITS:
            message = f"{MOST_COMMITS} turns wait for their text; commit again later."
            code = "rate_limit_exceeded"
            raise BadEvent(Details(code=code, message=message, event_id=event.event_id))
        flushed = attachment.flush(self._host.settings.finish_deadline_s)
        if self._terms.detection is not None:
            self._committed_ms = sent_ms
            self.spawn(self._flushed(flushed))
            return
        turn = _Turn(new_id("item"))
        pending = _Pending(turn, self._committed_ms, sent_ms, list(self._uncommitted))
        self._uncommitted.clear()
        self._committed_ms = sent_ms
        self._pending.append(pending)
        self._tell_item(turn.item_id)
        self.spawn(self._complete(pending, flushed))

    async def _flushed(self, flushed: Flushed) -> None:
        """In turns that the recognizer ends a commit only hurries; nothing said is an item, too."""
        before = self._previous
        await flushed()
        if self._previous == before:
            turn = _Turn(new_id("item"))
            self._tell_item(turn.item_id)
            self._tell_completed(turn, "", 0.0)

    async def _complete(self, pending: _Pending, flushed: Flushed) -> None:
        await flushed()
        if pending in self._pending:
            self._pending.remove(pending)
            seconds = (pending.until_ms - pending.from_ms) / 1000
            self._tell_completed(pending.turn, " ".join(pending.texts), seconds)

    def _clear(self) -> None:
        if self._attachment is not None and not self._pending:
            self._attachment.discard()
        self._uncommitted.clear()
        self._turns.clear()
        self._committed_ms = self._voice.sent_ms
        self._say(Cleared())

    # What was said

    def transcript(self, line: SpokenLine) -> bool:
        """Tell what is new of a turn, and its end."""
        said = line.transcript
        begin_ms = self.stream_ms(self._voice, line.start_ms)
        if said.is_final and self._belongs(begin_ms, said.text):
            return True
        if self._terms.detection is None:
            return False
        turn = self._turns.get(said.item_id)
        start_ms = round(begin_ms)
        if turn is None:
            if len(self._turns) >= MOST_OPEN:
                del self._turns[next(iter(self._turns))]
            turn = self._turns[said.item_id] = _Turn(new_id("item"))
            self._say(SpeechStarted(item_id=turn.item_id, audio_start_ms=start_ms))
        if not said.is_final:
            self._tell_agreed(turn, said.text)
            return True
        del self._turns[said.item_id]
        end_ms = max(start_ms, round(self.stream_ms(self._voice, line.end_ms)))
        self._committed_ms = max(self._committed_ms, min(end_ms, self._voice.sent_ms))
        self._say(SpeechStopped(item_id=turn.item_id, audio_end_ms=end_ms))
        self._tell_item(turn.item_id)
        return self._tell_completed(turn, said.text, (end_ms - start_ms) / 1000)

    def _belongs(self, begin_ms: float, text: str) -> bool:
        """Whether a final is text of a turn that the client ends: the one in which it began."""
        for pending in self._pending:
            if begin_ms < pending.until_ms:
                pending.texts.append(text)
                return True
        if self._terms.detection is None:
            self._uncommitted.append(text)
            return True
        return False

    def _tell_agreed(self, turn: _Turn, text: str) -> None:
        """Deltas cannot be taken back: tell the words that two interims agree on."""
        agreed = _agreed(turn.guess, text)
        turn.guess = text
        if len(agreed) > len(turn.told) and agreed.startswith(turn.told):
            self._say(Delta(item_id=turn.item_id, delta=agreed[len(turn.told) :]))
            turn.told = agreed

    def _tell_item(self, item_id: str) -> None:
        before, self._previous = self._previous, item_id
        item = Item(item_id)
        self._say(Committed(item_id=item_id, previous_item_id=before))
        if self._beta:
            self._say(BetaItemCreated(previous_item_id=before, item=item))
        else:
            self._say(ItemAdded(previous_item_id=before, item=item))
            self._say(ItemDone(previous_item_id=before, item=item))

    def _tell_completed(self, turn: _Turn, text: str, seconds: float) -> bool:
        if len(text) > len(turn.told) and text.startswith(turn.told):
            self._say(Delta(item_id=turn.item_id, delta=text[len(turn.told) :]))
        usage = Usage(round(seconds, 3))
        return self._say(Completed(item_id=turn.item_id, transcript=text, usage=usage))

    def _say(self, event: msgspec.Struct) -> bool:
        return self.send(encode(event))


def _agreed(before: str, now: str) -> str:
    """The words that two texts begin with alike, up to the last letter they share."""
    words = 0
    for one, other in zip(before.split(), now.split(), strict=False):
        if one != other:
            break
        words += 1
    return " ".join(now.split()[:words])


def _provider(host: SessionHost, model: str) -> str | None:
    return provider_of(model, MODELS, host.offer.available_providers, host.offer.aliases)


def _no_model(host: SessionHost, model: str) -> str:
    able = ", ".join(host.offer.available_providers)
    return f"The model '{model[:80]}' does not exist; recognizers here: {able}"


def _refusal(message: str, param: str | None, code: str) -> Refusal:
    details = Details(code=code, message=message, param=param)
    return Refusal(400, encode({"error": details}).decode())
