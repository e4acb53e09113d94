"""OpenAI Realtime transcription: one WebSocket per track.

Comes in: mono PCM at 24 kHz. Goes out: interims with the text so far of their item, and finals in
the order they were spoken, with the audio times the service measured. ``edge.asr.registry`` builds
it. Source: OpenAI API reference, Realtime, transcription sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import time
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import InvalidHandshake, InvalidStatus

from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.asr.openai_events import RATE_HZ, Transcription, session_update
from edge.asr.openai_stream import OpenAICounts, OpenAIStream
from edge.asr.upstream import Upstream, connect
from edge.errors import (
    RecognizerBusy,
    RecognizerClosed,
    RecognizerError,
    RecognizerRefused,
    RecognizerTimeout,
    SettingError,
)
from edge.option import option

SERVER_VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 300,
}


class OpenAISettings(msgspec.Struct, frozen=True, kw_only=True):
    """Access to OpenAI's Realtime API and how it transcribes."""

    openai_api_key: Annotated[
        str | None, option("Key of the OpenAI API", env="OPENAI_API_KEY", secret=True)
    ] = None
    """Makes the recognizer available."""
    openai_realtime_url: Annotated[
        str, option("Address of the Realtime endpoint", env="OPENAI_REALTIME_URL")
    ] = "wss://api.openai.com/v1/realtime?intent=transcription"
    """A proxy or a server of the same protocol may stand here; ws or wss."""
    openai_model: Annotated[str, option("Transcription model", env="OPENAI_MODEL")] = (
        "gpt-4o-mini-transcribe"
    )
    openai_transcription_prompt: Annotated[
        str | None,
        option("Words and style the model should expect", env="OPENAI_TRANSCRIPTION_PROMPT"),
    ] = None
    openai_turn_detection: Annotated[
        dict[str, Any] | None,
        option(
            "How the service finds the end of an utterance, as JSON; null leaves it to pauses"
            " in the packets",
            env="OPENAI_TURN_DETECTION",
        ),
    ] = msgspec.field(default_factory=SERVER_VAD.copy)
    """Replaces the default whole. ``{"type":"none"}`` is null too, for files that know no null."""
    openai_session: Annotated[
        Literal["ga", "beta"],
        option("Form of the session's configuration: ga, or beta for older compatible servers"),
    ] = "ga"
    """``ga`` is ``session.update``, ``beta`` is ``transcription_session.update``."""
    openai_key_in_subprotocol: Annotated[
        bool, option("Send the key as a WebSocket subprotocol, not as an Authorization header")
    ] = False
    """For servers behind something that strips the header."""


def missing(settings: OpenAISettings) -> str | None:
    """What has to be set before the recognizer can be used, or None."""
    return None if settings.openai_api_key else "set OPENAI_API_KEY"


class OpenAIRecognizer(Recognizer):
    """Opens transcription sessions; raises ``SettingError`` for settings it cannot use."""

    name: ClassVar[str] = "openai"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._url = _checked_url(settings.openai_realtime_url)
        self._turn_detection = _checked_turn_detection(settings.openai_turn_detection)
        self._tls: ssl.SSLContext | None = None
        self.counts: OpenAICounts = OpenAICounts()
        """For metrics; only grows."""

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=RATE_HZ)

    async def start(self) -> None:
        if urlsplit(self._url).scheme == "wss":
            self._tls = await asyncio.to_thread(ssl.create_default_context)

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        """See ``Recognizer.open``.

        Audio may follow at once: the service takes the configuration before it. If it refuses it,
        the stream ends with ``RecognizerRefused``.
        """
        if self._tls is None:
            await self.start()
        connection = await self._connect()
        transcription = Transcription(
            model=self._settings.openai_model,
            language=request.language or None,
            prompt=self._settings.openai_transcription_prompt or None,
        )
        update = session_update(self._settings.openai_session, transcription, self._turn_detection)
        return OpenAIStream(connection, update, emit, self.counts)

    async def _connect(self) -> Upstream:
        headers, subprotocols = self._credentials()
        try:
            return await connect(
                self._url, headers=headers, subprotocols=subprotocols, tls=self._tls
            )
        except InvalidStatus as error:
            raise _status_error(error) from error
        except ssl.SSLCertVerificationError as error:
            raise RecognizerRefused(
                f"OpenAI: the certificate of {_host(self._url)} is not trusted: "
                f"{error.verify_message}"
            ) from error
        except TimeoutError as error:
            raise RecognizerTimeout(f"OpenAI: {_host(self._url)} does not answer") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RecognizerClosed(f"OpenAI: cannot reach {_host(self._url)}: {reason}") from error
        except InvalidHandshake as error:
            raise RecognizerClosed(
                f"OpenAI: {_host(self._url)} did not complete the WebSocket handshake"
            ) from error

    def _credentials(self) -> tuple[dict[str, str], list[str]]:
        key = self._settings.openai_api_key or ""
        beta = self._settings.openai_session == "beta"
        if self._settings.openai_key_in_subprotocol:
            names = ["realtime", f"openai-insecure-api-key.{key}"]
            if beta:
                names.append("openai-beta.realtime-v1")
            return {}, names
        headers = {"Authorization": f"Bearer {key}"}
        if beta:
            headers["OpenAI-Beta"] = "realtime=v1"
        return headers, []


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise SettingError("OPENAI_REALTIME_URL", _host(url), "it is a ws:// or wss:// address")
    return url


def _checked_turn_detection(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None or value == {"type": "none"}:
        return None
    if not isinstance(value.get("type"), str):
        shown = msgspec.json.encode(value).decode()
        raise SettingError(
            "OPENAI_TURN_DETECTION", shown, 'it is null or a JSON object with a "type"'
        )
    return value


def _host(url: str) -> str:
    """The address without path, query and credentials: what may stand in a log."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _status_error(error: InvalidStatus) -> RecognizerError:
    status = error.response.status_code
    text = f"OpenAI answered {status} to the connection"
    if status in (408, 425, 429) or status >= 500:
        return RecognizerBusy(text, _retry_after_s(error.response.headers.get("Retry-After")))
    hint = {
        401: "; check OPENAI_API_KEY",
        403: "; the key has no access",
        404: "; check OPENAI_REALTIME_URL",
    }
    return RecognizerRefused(text + hint.get(status, ""))


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(float(int(value)), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None
