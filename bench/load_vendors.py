"""What the stand-in says as one service or another; ``bench.load_upstream`` carries it.

Every connection gets an interim each 0.5 s and a final each 4 s whose text ends with ``t<ns>``, the
monotonic clock when it was sent (the same clock in all processes of a machine).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

INTERIM_S = 0.5
INTERIMS_PER_FINAL = 8
TEXT = 1
_SMALL_BYTES = 2000
"""OpenAI's control messages are smaller than this, its audio messages larger."""
_APPEND_OVERHEAD = len('{"type":"input_audio_buffer.append","audio":""}')
_ITEM = "conversation.item.input_audio_transcription"
_items = itertools.count(1)


class Vendor(Protocol):
    """One connection's answers."""

    def is_audio(self, opcode: int, length: int) -> bool:
        """Whether a message need not be read."""
        ...

    def audio(self, length: int) -> None:
        """Such a message came."""
        ...

    def opened(self) -> None:
        """The handshake is over."""
        ...

    def control(self, message: bytes) -> bool:
        """Any other message came; False when the connection is to be closed."""
        ...

    def interim(self) -> None:
        """An interim is due."""
        ...

    def final(self) -> None:
        """A final is due."""
        ...


def vendor_of(target: str, send: Callable[[str], None]) -> Vendor:
    """The one that serves this request target."""
    address = urlsplit(target)
    if address.path.endswith("/listen"):
        return Deepgram(send, dict(parse_qs(address.query)))
    return OpenAI(send)


class OpenAI:
    """The Realtime endpoint with 24 kHz PCM."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._audio_bytes = 0
        self._item = ""
        self._item_start_ms = 0

    def is_audio(self, opcode: int, length: int) -> bool:
        return length > _SMALL_BYTES

    def audio(self, length: int) -> None:
        self._audio_bytes += (length - _APPEND_OVERHEAD) * 3 // 4

    def opened(self) -> None:
        self._send('{"type":"session.created","event_id":"e","session":{"type":"transcription"}}')

    def control(self, message: bytes) -> bool:
        if b"session.update" in message:
            self._send('{"type":"session.updated","event_id":"e","session":{}}')
        elif b"input_audio_buffer.commit" in message:
            self._announce()
            self.final()
        return True

    def interim(self) -> None:
        self._announce()
        self._send(
            f'{{"type":"{_ITEM}.delta","event_id":"e","item_id":"{self._item}",'
            f'"content_index":0,"delta":" t{monotonic_ns()}"}}'
        )

    def final(self) -> None:
        self._announce()
        item, self._item = self._item, ""
        self._item_start_ms = self._audio_ms
        self._send(
            '{"type":"input_audio_buffer.speech_stopped","event_id":"e","audio_end_ms":'
            f'{self._audio_ms},"item_id":"{item}"}}'
        )
        self._send(
            '{"type":"input_audio_buffer.committed","event_id":"e","previous_item_id":null,'
            f'"item_id":"{item}"}}'
        )
        self._send(
            f'{{"type":"{_ITEM}.completed","event_id":"e","item_id":"{item}","content_index":0,'
            f'"transcript":"this is what was said until t{monotonic_ns()}"}}'
        )

    def _announce(self) -> None:
        if not self._item:
            self._item = f"item_{next(_items)}"
            self._send(
                '{"type":"input_audio_buffer.speech_started","event_id":"e","audio_start_ms":'
                f'{self._item_start_ms},"item_id":"{self._item}"}}'
            )

    @property
    def _audio_ms(self) -> int:
        return self._audio_bytes // 48


class Deepgram:
    """``/v1/listen`` with Opus packets of 20 ms, one a message, or with PCM."""

    def __init__(self, send: Callable[[str], None], query: dict[str, list[str]]) -> None:
        self._send = send
        rate_hz = int(query.get("sample_rate", ["48000"])[0])
        self._is_opus = query.get("encoding", ["opus"])[0] == "opus"
        self._bytes_per_s = 2 * rate_hz
        self._audio_s = 0.0
        self._begin_s = 0.0

    def is_audio(self, opcode: int, length: int) -> bool:
        return opcode != TEXT

    def audio(self, length: int) -> None:
        self._audio_s += 0.02 if self._is_opus else length / self._bytes_per_s

    def opened(self) -> None:
        pass

    def control(self, message: bytes) -> bool:
        kind = json.loads(message)["type"]
        if kind == "Finalize":
            self._result(is_final=True, by_finalize=True)
        elif kind == "CloseStream":
            self._result(is_final=True)
            self._send(
                '{"type":"Metadata","transaction_key":"deprecated","request_id":"r","sha256":"",'
                f'"created":"2026-01-01T00:00:00Z","duration":{self._audio_s},"channels":1}}'
            )
        return kind != "CloseStream"

    def interim(self) -> None:
        self._result(is_final=False)

    def final(self) -> None:
        self._result(is_final=True)

    def _result(self, *, is_final: bool, by_finalize: bool = False) -> None:
        begin_s = self._begin_s
        if is_final:
            self._begin_s = self._audio_s
        words = f"this is what was said until t{monotonic_ns()}"
        self._send(
            '{"type":"Results","channel_index":[0,1],'
            f'"duration":{self._audio_s - begin_s:.3f},"start":{begin_s:.3f},'
            f'"is_final":{_flag(is_final)},"speech_final":{_flag(is_final)},'
            f'"channel":{{"alternatives":[{{"transcript":"{words}","confidence":0.98,"words":[]}}]}},'
            '"metadata":{"request_id":"r","model_uuid":"m","model_info":{"name":"n","version":"v",'
            f'"arch":"a"}}}},"from_finalize":{_flag(by_finalize)}}}'
        )


def _flag(value: bool) -> str:
    return "true" if value else "false"
