"""A Deepgram ``/v1/listen`` that keeps to the vendor's protocol and hears tones as words.

It checks what the documents demand: key by header or subprotocol, query, audio as announced (raw
Opus packets, Ogg pages, or PCM), a message at least every ten seconds. Words get their times. It
is itself checked by the official client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from itertools import count
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from _native.opus import Decoder, OpusError
from tests.asr.fakes.common import Conversation, Ear, FakeService, Fault, Heard, Line, answer
from tests.asr.fakes.ogg_reader import OggReader
from tests.asr.support.tones import FRAME_MS, WORDS

KEY = "0123456789abcdef0123456789abcdef01234567"
RATES_HZ = (8000, 12000, 16000, 24000, 48000)
HEARING_HZ = 24000
INTERIM_FRAMES = 1000 // FRAME_MS
"""How often an interim result comes."""
LONGEST_FRAMES = 4000 // FRAME_MS
"""After so much a result becomes final, at the end of a word."""
DEFAULT_ENDPOINTING_MS = 10
NOTICEABLE_FRAMES = 5
"""Less than this and ``Finalize`` is not answered."""
BOOLEANS = ("interim_results", "punctuate", "diarize", "mip_opt_out", "smart_format", "vad_events")
KNOWN = (
    *BOOLEANS, "channels", "encoding", "sample_rate", "model", "language", "endpointing", "tag",
    "keyterm",
)  # fmt: skip


class FakeDeepgram(FakeService):
    """``async with FakeDeepgram() as deepgram``; then ``deepgram.url``."""

    def __init__(
        self,
        *,
        faults: Sequence[Fault] | Callable[[int], Fault] = (),
        timeout_s: float = 10.0,
        speaker_of: Callable[[str], int] = lambda word: WORDS.index(word) % 2,
        language: str = "en",
    ) -> None:
        """``language`` is what is detected, ``speaker_of`` who says a word."""
        super().__init__(faults)
        self.timeout_s = timeout_s
        self.speaker_of = speaker_of
        self.language = language
        self.requests = count(1)

    def refuse(self, request: Request, heard: Heard) -> Response | None:
        if heard.path != "/v1/listen":
            return _refusal(HTTPStatus.NOT_FOUND, "NOT_FOUND", "unknown address")
        if not authorized(heard):
            return _refusal(HTTPStatus.UNAUTHORIZED, "INVALID_AUTH", "Invalid credentials.")
        if fault := _query_fault(heard.query):
            heard.violations.append(fault)
            return _refusal(HTTPStatus.BAD_REQUEST, "Bad Request", fault)
        return None

    def subprotocol(
        self, _: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        return Subprotocol("token") if "token" in offered else None

    def converse(self, line: Line) -> Conversation:
        return _Listening(self, line)


class _Listening(Conversation):
    """One open connection."""

    def __init__(self, service: FakeDeepgram, line: Line) -> None:
        self.timeout_s = service.timeout_s
        self._service = service
        self._line = line
        self._query = {name: values[0] for name, values in line.heard.query.items()}
        self._encoding = self._query.get("encoding")
        self._ear = Ear(HEARING_HZ)
        if self._encoding == "linear16":
            self._ear = Ear(int(self._query["sample_rate"]))
        self._decoder = Decoder(HEARING_HZ)
        self._ogg = OggReader()
        endpointing = self._query.get("endpointing", str(DEFAULT_ENDPOINTING_MS))
        self._endpoint_frames: float = float("inf")
        if endpointing != "false":
            self._endpoint_frames = max(int(endpointing) / FRAME_MS, 1)
        self._begin = 0
        """First frame that has no final."""
        self._seen = 0
        self._told = 0
        """Frame up to which an interim was sent."""
        self._request_id = f"request-{next(service.requests)}"

    async def audio(self, message: bytes) -> float:
        if not message:
            self._refuse_data("an empty binary message")
            return self._ear.audio_ms
        try:
            self._ear.hear(self._pcm(message))
        except (OpusError, ValueError) as error:
            self._refuse_data(str(error))
        self._listen()
        return self._ear.audio_ms

    async def text(self, message: str) -> None:
        try:
            kind = json.loads(message)["type"]
        except (ValueError, KeyError, TypeError):
            kind = None
        if kind == "Finalize":
            if len(self._ear.tones) - self._begin >= NOTICEABLE_FRAMES:
                self._result(len(self._ear.tones), final=True, finalized=True)
        elif kind == "CloseStream":
            self._result(len(self._ear.tones), final=True)
            self._line.say(
                "Metadata",
                transaction_key="deprecated",
                request_id=self._request_id,
                sha256="0" * 64,
                created="2024-08-29T22:37:55.202Z",
                duration=self._ear.audio_ms / 1000,
                channels=1,
            )
            self._line.hang_up(1000)
        elif kind != "KeepAlive":
            self._refuse_data(f"unknown message {message[:50]}")

    async def timed_out(self) -> None:
        self._line.hang_up(
            1011,
            "Deepgram did not receive audio data or a text message within the timeout window. See"
            " https://dpgr.am/net0001",
        )

    async def fail(self, error: dict[str, str]) -> None:
        members = {"description": "on demand", "message": "", "variant": "INTERNAL", **error}
        self._line.say("Error", **members)
        self._line.hang_up(1011, "error on demand")

    def _pcm(self, message: bytes) -> bytes:
        if self._encoding == "linear16":
            if len(message) % 2:
                raise ValueError("not a whole number of samples")
            return message
        if self._encoding == "opus":
            return self._decoder.decode(message)
        pcm = b"".join(self._decoder.decode(packet) for packet in self._ogg.packets(message))
        skip = self._ogg.take_skip(len(pcm) // 2, HEARING_HZ)
        return pcm[2 * skip :]

    def _refuse_data(self, problem: str) -> None:
        self._line.violated(problem)
        self._line.hang_up(1008, "DATA-0000: the payload cannot be decoded as audio")

    def _listen(self) -> None:
        """Go through the new frames: results become final at pauses and when they are long."""
        tones = self._ear.tones
        while self._seen < len(tones):
            self._seen += 1
            now = self._seen
            if now - self._told >= INTERIM_FRAMES and self._query.get("interim_results") == "true":
                self._result(now, final=False)
                self._told = now
            quiet = 0
            while quiet < now - self._begin and tones[now - 1 - quiet] < 0:
                quiet += 1
            if quiet >= self._endpoint_frames and self._ear.words(self._begin, now):
                self._result(now, final=True, speech_final=True)
            elif now - self._begin >= LONGEST_FRAMES:
                self._result(self._word_boundary(now), final=True)

    def _word_boundary(self, now: int) -> int:
        """Where the sound of this moment began."""
        tones, at = self._ear.tones, now
        while at > self._begin and tones[at - 1] == tones[now - 1] and tones[now - 1] >= 0:
            at -= 1
        return at if at > self._begin else now

    def _result(
        self, end: int, *, final: bool, speech_final: bool = False, finalized: bool = False
    ) -> None:
        begin, frame_s = self._begin, FRAME_MS / 1000
        words = [self._word(*timed) for timed in self._ear.words(begin, end)]
        if self._query.get("punctuate") == "true" and words:
            words[0]["punctuated_word"] = words[0]["punctuated_word"].capitalize()
            words[-1]["punctuated_word"] += "."
        shown = [word.get("punctuated_word", word["word"]) for word in words]
        best: dict[str, Any] = {
            "transcript": " ".join(shown),
            "confidence": 0.9 if words else 0.0,
            "words": words,
        }
        if self._query.get("language") == "multi":
            best["languages"] = [self._service.language] if words else []
        self._line.say(
            "Results",
            channel_index=[0, 1],
            duration=round((end - begin) * frame_s, 3),
            start=round(begin * frame_s, 3),
            is_final=final,
            speech_final=speech_final,
            channel={"alternatives": [best]},
            metadata={
                "request_id": self._request_id,
                "model_info": {"name": "fake", "version": "1", "arch": "nova"},
                "model_uuid": "0",
            },
            from_finalize=finalized,
        )
        if final:
            self._begin = self._told = end

    def _word(self, word: str, start_s: float, end_s: float) -> dict[str, Any]:
        said: dict[str, Any] = {"word": word, "start": start_s, "end": end_s, "confidence": 0.8}
        if self._query.get("punctuate") == "true":
            said["punctuated_word"] = word
        if self._query.get("diarize") == "true":
            said["speaker"] = self._service.speaker_of(word)
        if self._query.get("language") == "multi":
            said["language"] = self._service.language
        return said


def authorized(heard: Heard) -> bool:
    """Whether the key came by header or by subprotocol, and not in the address."""
    offered = [name.strip() for name in heard.headers.get("sec-websocket-protocol", "").split(",")]
    if offered == ["token", KEY]:
        return True
    return heard.headers.get("authorization") == f"Token {KEY}"


def _refusal(status: HTTPStatus, code: str, message: str) -> Response:
    body = {"err_code": code, "err_msg": message, "request_id": "request-0"}
    return answer(status, body, {"dg-error": message})


def _query_fault(query: dict[str, list[str]]) -> str | None:
    """What is wrong with the parameters."""
    if unknown := set(query) - set(KNOWN):
        return f"unknown parameters {sorted(unknown)}"
    for name in BOOLEANS:
        if query.get(name, ["true"])[0] not in ("true", "false"):
            return f"{name} is not a boolean"
    if any(len(values) > 1 for name, values in query.items() if name not in ("tag", "keyterm")):
        return "a parameter is given twice"
    if query.get("channels", ["1"]) != ["1"]:
        return "channels is not 1"
    if not query.get("model", ["nova"])[0].startswith("nova"):
        return "no such model"
    if any(not 0 < len(tag) <= 128 for tag in query.get("tag", [])):
        return "a tag has 1 to 128 characters"
    encoding, rate = query.get("encoding", [None])[0], query.get("sample_rate", [None])[0]
    if encoding is None:
        return "sample_rate without encoding" if rate is not None else None
    if encoding not in ("linear16", "opus"):
        return f"unknown encoding {encoding}"
    if rate is None or not rate.isdigit() or int(rate) not in RATES_HZ:
        return "encoding without a usable sample_rate"
    endpointing = query.get("endpointing", ["10"])[0]
    return None if endpointing == "false" or endpointing.isdigit() else "bad endpointing"
