"""OpenAI Realtime transcription: one WebSocket per track.

Comes in: mono PCM at 24 kHz. Goes out: interims with the text so far of their item, and finals in
the order they were spoken, with the audio times the service measured. ``edge.asr.registry`` builds
it. Source: OpenAI API reference, Realtime, transcription sessions.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.asr.openai_events import RATE_HZ, Transcription, session_update
from edge.asr.openai_stream import OpenAICounts, OpenAIStream
from edge.asr.service import Service
from edge.asr.upstream import Upstream
from edge.errors import SettingError
from edge.option import option

NAME = "OpenAI"
SERVER_VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 300,
}

CONTEXT_SENTENCE = (
    "What follows was said by others in the same conversation a moment ago; use it only as context:"
)


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


class OpenAISessions:
    """Transcription sessions as the settings have them, whoever's server they are on."""

    def __init__(self, name: str, settings: OpenAISettings) -> None:
        """``name`` is whose server it is, for messages; ``SettingError`` for unusable settings."""
        self._name = name
        self._settings = settings
        self._turn_detection = _checked_turn_detection(settings.openai_turn_detection)
        self.counts: OpenAICounts = OpenAICounts()
        """For metrics; only grows."""

    def credentials(self, key: str) -> tuple[dict[str, str], list[str]]:
        """Headers and subprotocols that carry a key."""
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

    def begin(self, connection: Upstream, request: StreamRequest, emit: Emit) -> OpenAIStream:
        """Begin a session on a connection.

        Audio may follow at once: the service takes the configuration before it. If it refuses it,
        the stream ends with ``RecognizerRefused``.
        """
        settings = self._settings

        def configure(context: str | None, event_id: str | None) -> bytes:
            transcription = Transcription(
                model=settings.openai_model,
                language=request.language or None,
                prompt=_prompt(settings.openai_transcription_prompt, context),
            )
            return session_update(
                settings.openai_session, transcription, self._turn_detection, event_id
            )

        return OpenAIStream(self._name, connection, configure, emit, self.counts)


class OpenAIRecognizer(Recognizer):
    """Opens transcription sessions; raises ``SettingError`` for settings it cannot use."""

    name: ClassVar[str] = "openai"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    def __init__(self, settings: OpenAISettings) -> None:
        self._key = settings.openai_api_key or ""
        self._service = Service(
            NAME,
            settings.openai_realtime_url,
            url_setting="OPENAI_REALTIME_URL",
            key_setting="OPENAI_API_KEY",
        )
        self._sessions = OpenAISessions(NAME, settings)
        self.counts: OpenAICounts = self._sessions.counts

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=RATE_HZ)

    async def start(self) -> None:
        await self._service.start()

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        headers, subprotocols = self._sessions.credentials(self._key)
        connection = await self._service.connect(headers=headers, subprotocols=subprotocols)
        return self._sessions.begin(connection, request, emit)


def _prompt(base: str | None, context: str | None) -> str | None:
    """The prompt of the settings and, after a blank line, what others have just said."""
    parts = [base] if base else []
    if context:
        parts.append(f"{CONTEXT_SENTENCE}\n{context}")
    return "\n\n".join(parts) or None


def _checked_turn_detection(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None or value == {"type": "none"}:
        return None
    if not isinstance(value.get("type"), str):
        shown = msgspec.json.encode(value).decode()
        raise SettingError(
            "OPENAI_TURN_DETECTION", shown, 'it is null or a JSON object with a "type"'
        )
    return value
