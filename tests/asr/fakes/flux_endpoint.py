"""A Deepgram Flux (``/v2/listen``) that keeps to the vendor's protocol and hears tones as words.

Turns follow the documented state machine: StartOfTurn, Update every quarter of a second,
EagerEndOfTurn, TurnResumed, EndOfTurn. ``CloseStream`` gives a last Update, no EndOfTurn, and no
close code. It is itself checked by the official client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.asr.fakes.common import Conversation, Ear, FakeService, Fault, Heard, Line, answer
from tests.asr.fakes.deepgram_endpoint import authorized
from tests.asr.support.tones import FRAME_MS, LEAST_FRAMES

RATES_HZ = (8000, 16000, 24000, 44100, 48000)
UPDATE_FRAMES = 12
"""240 ms."""
RANGES = {
    "eot_threshold": (0.5, 1.0),
    "eager_eot_threshold": (0.3, 0.9),
    "eot_timeout_ms": (500, 60000),
}
MODELS = ("flux-general-en", "flux-general-multi")
REPEATABLE = ("keyterm", "tag", "language_hint")
KNOWN = (*RANGES, *REPEATABLE, "model", "encoding", "sample_rate", "mip_opt_out")
MOST_KEYTERMS = 100


class FakeFlux(FakeService):
    """``async with FakeFlux() as flux``; then ``flux.url``."""

    def __init__(
        self,
        *,
        faults: Sequence[Fault] | Callable[[int], Fault] = (),
        end_silence_ms: int = 300,
        eager_silence_ms: int = 140,
        word_times: bool = True,
        skips: Callable[[int], bool] = lambda message: False,
        unended: Callable[[int], bool] = lambda turn: False,
    ) -> None:
        """``skips`` numbers that are never sent, ``unended`` turns whose end is never told."""
        super().__init__(faults)
        self.end_frames = end_silence_ms // FRAME_MS
        self.eager_frames = eager_silence_ms // FRAME_MS
        self.word_times = word_times
        self.skips = skips
        self.unended = unended

    def refuse(self, request: Request, heard: Heard) -> Response | None:
        if heard.path != "/v2/listen":
            return answer(HTTPStatus.NOT_FOUND, {"err_msg": "unknown address"})
        if not authorized(heard):
            return answer(HTTPStatus.UNAUTHORIZED, {"err_msg": "Invalid credentials."})
        if fault := _query_fault(heard.query):
            heard.violations.append(fault)
            return answer(HTTPStatus.BAD_REQUEST, {"err_msg": fault})
        return None

    def subprotocol(
        self, _: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        return Subprotocol("token") if "token" in offered else None

    def converse(self, line: Line) -> Conversation:
        return _Listening(self, line)


class _Listening(Conversation):
    """One open connection."""

    def __init__(self, service: FakeFlux, line: Line) -> None:
        query = line.heard.query
        self._service = service
        self._line = line
        self._ear = Ear(int(query["sample_rate"][0]))
        self._manual = query.get("eot_threshold") == ["1.0"]
        self._eager = "eager_eot_threshold" in query
        self._multilingual = query["model"] == ["flux-general-multi"]
        self._timeout_frames = int(query.get("eot_timeout_ms", ["5000"])[0]) // FRAME_MS
        self._messages = 0
        self._turn = 0
        self._begin = 0
        """First frame of the turn's window."""
        self._open = False
        self._awaiting = False
        """An eager end was told."""
        self._seen = 0
        self._told = 0

    async def begin(self) -> None:
        self._say("Connected")

    async def audio(self, message: bytes) -> float:
        if not message or len(message) % 2:
            self._line.violated("not a whole number of samples")
            await self.fail({"code": "UNPARSABLE_CLIENT_MESSAGE"})
            return self._ear.audio_ms
        self._ear.hear(message)
        while self._seen < len(self._ear.tones):
            self._seen += 1
            self._step()
        return self._ear.audio_ms

    async def text(self, message: str) -> None:
        try:
            kind = json.loads(message)["type"]
        except (ValueError, KeyError, TypeError):
            kind = None
        if kind == "ForceEndTurn":
            if self._open:
                self._end_turn("manual")
        elif kind == "CloseStream":
            self._tell("Update")
            self._line.hang_up(None)
        elif kind == "Configure":
            self._say("ConfigureSuccess", thresholds={}, keyterms=[])
        else:
            self._line.violated(f"unknown message {message[:50]}")
            await self.fail({"code": "UNPARSABLE_CLIENT_MESSAGE"})

    async def fail(self, error: dict[str, str]) -> None:
        self._say("Error", **{"code": "INTERNAL_SERVER_ERROR", "description": "on demand", **error})
        self._line.hang_up(1011)

    def _step(self) -> None:
        """One more frame."""
        tones, now = self._ear.tones, self._seen
        quiet = 0
        while quiet < now - self._begin and tones[now - 1 - quiet] < 0:
            quiet += 1
        if not self._open:
            words = self._ear.words(self._begin, now) if tones[now - 1] >= 0 else []
            if words:
                self._open = True
                self._tell("StartOfTurn")
            elif quiet > 2 * LEAST_FRAMES:
                self._begin = now - LEAST_FRAMES  # the window follows silence
        elif self._awaiting and quiet == 0:
            self._awaiting = False
            self._tell("TurnResumed")
        elif quiet >= self._service.end_frames and not self._manual:
            self._end_turn("model")
        elif quiet >= self._timeout_frames:
            self._end_turn("timeout")
        elif self._eager and not self._awaiting and quiet >= self._service.eager_frames:
            self._awaiting = True
            self._tell("EagerEndOfTurn")
        if now - self._told >= UPDATE_FRAMES:
            self._tell("Update")

    def _end_turn(self, trigger: str) -> None:
        if not self._service.unended(self._turn):
            self._tell("EndOfTurn", trigger=trigger)
        self._turn += 1
        self._begin = self._told = self._seen
        self._open = self._awaiting = False

    def _tell(self, event: str, **members: Any) -> None:
        self._told = self._seen
        words = self._ear.words(self._begin, self._seen) if self._open else []
        if self._multilingual:
            members["languages"] = ["es"] if words else []
        self._say(
            "TurnInfo",
            event=event,
            turn_index=self._turn,
            audio_window_start=round(self._begin * FRAME_MS / 1000, 3),
            audio_window_end=round(self._seen * FRAME_MS / 1000, 3),
            transcript=" ".join(word for word, _, _ in words),
            words=[self._word(*timed) for timed in words],
            end_of_turn_confidence=0.9 if event == "EndOfTurn" else 0.1,
            **members,
        )

    def _word(self, word: str, start_s: float, end_s: float) -> dict[str, Any]:
        times = {"start": start_s, "end": end_s} if self._service.word_times else {}
        return {"word": word, "confidence": 0.8, **times}

    def _say(self, kind: str, **members: Any) -> None:
        number, self._messages = self._messages, self._messages + 1
        if not self._service.skips(number):
            identity = {} if kind == "Error" else {"request_id": "request-1"}
            self._line.say(kind, sequence_id=number, **identity, **members)


def _query_fault(query: dict[str, list[str]]) -> str | None:
    """What is wrong with the parameters."""
    if unknown := set(query) - set(KNOWN):
        return f"unknown parameters {sorted(unknown)}"
    if any(len(values) > 1 for name, values in query.items() if name not in REPEATABLE):
        return "a parameter is given twice"
    model = query.get("model", [""])[0]
    if model not in MODELS:
        return "no such model"
    if "language_hint" in query and model != "flux-general-multi":
        return "language_hint is only for flux-general-multi"
    if query.get("encoding") != ["linear16"]:
        return "encoding is not linear16"
    rate = query.get("sample_rate", [""])[0]
    if not rate.isdigit() or int(rate) not in RATES_HZ:
        return "no usable sample_rate"
    for name, (least, most) in RANGES.items():
        if name in query and not least <= float(query[name][0]) <= most:
            return f"{name} is out of range"
    if len(query.get("keyterm", [])) > MOST_KEYTERMS:
        return "too many keyterms"
    if any(not 0 < len(tag) <= 128 for tag in query.get("tag", [])):
        return "a tag has 1 to 128 characters"
    return None if query.get("mip_opt_out", ["true"])[0] in ("true", "false") else "bad mip_opt_out"
