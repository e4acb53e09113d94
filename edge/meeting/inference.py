"""The service that tells voices apart: asked with care, believed only when its answer is sound.

Comes in: audio of somebody who speaks, what was heard, and the voices known so far. Goes out: whose
voice it is and the voices known now, or ``InferenceFailed``. One that fails for everybody is left
alone for a while; one that asks for patience gets it from those who have it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from edge.asr.breaker import Breaker
from edge.errors import InferenceFailed, SettingError
from edge.logs import get_logger
from edge.meeting.records import Cluster, Evidence, Person
from edge.meeting.settings import MeetingSettings
from edge.meeting.status import SpeakerState

if TYPE_CHECKING:
    from edge.meeting.inference_http import Caller, Reply

AT_ONCE = 4
"""Calls of one worker that are under way at a time."""
MOST_WAITING = 256
MOST_HELD_BYTES = 64 * 1024 * 1024
"""Calls of one worker that are under way or wait, and what they hold together."""
MOST_TRIES = 3
MAX_SESSION_CHARS = 128
"""Of the service; longer names go to it in another form."""
BREAKER_FAILURES = 5
BREAKER_OPEN_S = 10.0
_BUSY_S = 1.0
"""What a service that says "not now", and no more, is taken to mean."""

_log = get_logger("edge.meeting.inference")


class Audio(Struct, frozen=True, kw_only=True):
    """A recording; for bare samples the rate and the channels say how to read them."""

    content_b64: Annotated[str, Meta(min_length=1)]
    format: Annotated[str, Meta(min_length=1)]
    sample_rate: int | UnsetType | None = UNSET
    channels: int | UnsetType | None = UNSET


class ResolveRequest(Struct, frozen=True, kw_only=True):
    """What the service is asked: whose voice is this?"""

    session_id: str
    audio: Audio
    asr_text: str | None
    state: SpeakerState


class UpdatedState(Struct, frozen=True, kw_only=True):
    """What the service knows now; configuration and captures are not its own."""

    clusters: tuple[Cluster, ...]
    bindings: dict[str, str]
    roster: tuple[Person, ...] | UnsetType | None = UNSET


class ResolveAnswer(Struct, frozen=True, kw_only=True):
    """What the service says."""

    session_id: str
    cluster_id: Annotated[str, Meta(min_length=1)]
    speaker_name: str | None = None
    decision: Literal["auto", "confirm", "unknown"]
    evidence: Evidence | None = None
    updated_state: UpdatedState


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ResolveAnswer).decode


class _Again(InferenceFailed):
    """The same call may succeed later."""


class _Busy(_Again):
    """The service says when: in ``after_s``."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        super().__init__("The inference service is busy; ask again later")


class Inference:
    """One worker's way to the service."""

    def __init__(self, settings: MeetingSettings, breaker: Breaker | None = None) -> None:
        """Raises ``SettingError`` for an address that cannot be one."""
        self._url = _address(settings)
        self._key = settings.inference_api_key
        self._timeout_s = settings.inference_timeout_ms / 1000
        self._breaker = breaker or Breaker(BREAKER_FAILURES, BREAKER_OPEN_S)
        self._caller: Caller | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._calls = 0
        self._held_bytes = 0
        self._busy_until_s = 0.0

    @property
    def is_configured(self) -> bool:
        """Whether there is a service to ask."""
        return bool(self._url)

    async def start(self) -> None:
        """Get ready on the event loop of the calls."""
        if self._url and self._caller is None:
            from edge.meeting.inference_http import Caller

            self._caller = Caller(self._url, self._key, AT_ONCE)

    async def stop(self) -> None:
        """Let go of all connections; calls under way fail."""
        caller, self._caller = self._caller, None
        if caller is not None:
            await caller.close()

    async def resolve(self, ask: ResolveRequest, patience_s: float = 0.0) -> ResolveAnswer:
        """Whose voice it is; raises ``InferenceFailed``.

        The answer comes within the configured time, and ``patience_s`` more when the service
        asks to be left alone for a while. May be cancelled.
        """
        if self._caller is None:
            raise InferenceFailed("There is no inference service; set INFERENCE_BASE_URL")
        name = ask.session_id
        if len(name) > MAX_SESSION_CHARS:
            name = _short(name)
            ask = msgspec.structs.replace(ask, session_id=name)
        body = _encode(ask)
        if self._calls >= MOST_WAITING or self._held_bytes + len(body) > MOST_HELD_BYTES:
            raise InferenceFailed("Too many calls wait for the inference service; ask again later")
        self._calls += 1
        self._held_bytes += len(body)
        try:
            answer = await self._persist(self._caller, body, patience_s)
        finally:
            self._calls -= 1
            self._held_bytes -= len(body)
        if answer.session_id != name:
            raise _unsound("it is about another session")
        return answer

    async def _persist(self, caller: Caller, body: bytes, patience_s: float) -> ResolveAnswer:
        began_s = time.monotonic()
        backoff = wait_random_exponential(multiplier=0.25, max=4)

        def wait_s(state: RetryCallState) -> float:
            failure = state.outcome and state.outcome.exception()
            wish_s = failure.after_s if isinstance(failure, _Busy) else 0.0
            return wish_s + backoff(state)

        def is_over(state: RetryCallState) -> bool:
            failure = state.outcome and state.outcome.exception()
            is_busy = isinstance(failure, _Busy)
            allowed_s = self._timeout_s + (patience_s if is_busy else 0.0)
            gone_s = time.monotonic() - began_s
            tries = 0 if is_busy else state.attempt_number
            return tries >= MOST_TRIES or gone_s + state.upcoming_sleep >= allowed_s

        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_Again), wait=wait_s, stop=is_over, reraise=True
        ):
            with attempt:
                left_s = began_s + self._timeout_s + patience_s - time.monotonic()
                return await self._try(caller, body, min(self._timeout_s, left_s))
        raise AssertionError("tenacity stops only with an error")

    async def _try(self, caller: Caller, body: bytes, deadline_s: float) -> ResolveAnswer:
        until_s = time.monotonic() + deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                await self._turns.acquire()
        except TimeoutError:
            raise InferenceFailed("The inference service has no time; ask again later") from None
        try:
            return await self._ask(caller, body, until_s)
        finally:
            self._turns.release()

    async def _ask(self, caller: Caller, body: bytes, until_s: float) -> ResolveAnswer:
        from edge.meeting.inference_http import Unreachable

        now_s = time.monotonic()
        if now_s < self._busy_until_s:
            raise _Busy(self._busy_until_s - now_s)
        permit = self._breaker.acquire(now_s)
        if permit is None:
            raise InferenceFailed("The inference service fails and is left alone for a moment")
        try:
            answer = self._answer(await caller.call(body, max(0.001, until_s - now_s)))
            permit.succeeded()
            return answer
        except Unreachable as error:
            permit.failed(time.monotonic())
            _log.warning("no answer from the inference service", reason=str(error))
            raise _Again(f"No answer from the inference service: {error}") from error
        except _Busy:
            raise
        except _Again:
            permit.failed(time.monotonic())
            raise
        except InferenceFailed:
            permit.succeeded()
            raise
        finally:
            permit.abandoned()

    def _answer(self, reply: Reply) -> ResolveAnswer:
        if reply.status == 429:
            wait_s = _BUSY_S if reply.retry_after_s is None else reply.retry_after_s
            self._busy_until_s = max(self._busy_until_s, time.monotonic() + wait_s)
            raise _Busy(wait_s)
        if reply.status != 200:
            _log.warning("the inference service refused", status=reply.status)
            failure = _Again if reply.status >= 500 else InferenceFailed
            raise failure(f"The inference service answered {reply.status}")
        try:
            answer = _decode(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _unsound(str(error)) from None
        clusters = [cluster.cluster_id for cluster in answer.updated_state.clusters]
        if len(set(clusters)) < len(clusters):
            raise _unsound("it names a cluster twice")
        return answer


def _unsound(why: str) -> InferenceFailed:
    _log.warning("an answer of the inference service cannot be used", reason=why)
    return InferenceFailed("The inference service's answer cannot be used; nothing was changed")


def _address(settings: MeetingSettings) -> str:
    base = settings.inference_base_url.strip().removesuffix("/")
    if not base:
        return ""
    try:
        parts = urlsplit(base)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise SettingError("inference_base_url", base, "give an address like https://host:port")
    return f"{base}/{settings.inference_resolve_path.removeprefix('/')}"


def _short(name: str) -> str:
    return f"~{hashlib.sha256(name.encode()).hexdigest()}"
