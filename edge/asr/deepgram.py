"""Deepgram transcription (``/v1/listen``): one WebSocket per track.

Comes in: Opus packets or Ogg pages as the client sent them, or mono PCM at 24 kHz. Goes out:
interims and finals with the times Deepgram measured, one message for each speaker's run.
``edge.asr.registry`` builds it. Source: Deepgram API reference, Listen streaming (v1).
"""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlencode, urlsplit

import msgspec

from edge.asr.deepgram_stream import NAME, DeepgramCounts, DeepgramStream
from edge.asr.interface import (
    AudioWanted,
    Emit,
    Recognizer,
    RecognizerStream,
    Source,
    StreamRequest,
)
from edge.asr.service import Service, host
from edge.asr.upstream import Upstream
from edge.errors import SettingError
from edge.option import option

MOST_TAG_CHARACTERS = 128
MULTILINGUAL = "multi"
MULTILINGUAL_ENDPOINTING_MS = 100
"""What Deepgram advises for speakers who switch languages."""
PCM = AudioWanted(encoding="pcm16", rate_hz=24000)


class DeepgramSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Access to Deepgram and how it transcribes."""

    deepgram_api_key: Annotated[
        str | None, option("Key of the Deepgram API", env="DEEPGRAM_API_KEY", secret=True)
    ] = None
    """Makes the recognizers deepgram and flux available."""
    deepgram_url: Annotated[
        str, option("Address of Deepgram's API, without /v1/listen", env="DEEPGRAM_URL")
    ] = "wss://api.deepgram.com"
    """A self-hosted Deepgram, a region or a proxy may stand here; ws or wss."""
    deepgram_model: Annotated[str, option("Transcription model", env="DEEPGRAM_MODEL")] = "nova-2"
    deepgram_language: Annotated[
        str,
        option(
            "Language of clients that name none; multi is several at once", env="DEEPGRAM_LANGUAGE"
        ),
    ] = MULTILINGUAL
    deepgram_encoding: Annotated[
        Literal["opus", "linear16"],
        option(
            "opus sends packets on as they came, linear16 decodes them first",
            env="DEEPGRAM_ENCODING",
        ),
    ] = "opus"
    """Audio that comes uncoded is always sent as linear16."""
    deepgram_punctuate: Annotated[
        bool, option("Punctuation and capital letters", env="DEEPGRAM_PUNCTUATE")
    ] = False
    deepgram_diarize: Annotated[
        bool, option("Tell several speakers on one track apart", env="DEEPGRAM_DIARIZE")
    ] = False
    """Each speaker's run of words becomes a message of its own, with the speaker's number."""
    deepgram_include_language: Annotated[
        bool,
        option("Put the detected language behind the text: [xx]", env="DEEPGRAM_INCLUDE_LANGUAGE"),
    ] = False
    deepgram_mip_opt_out: Annotated[
        bool,
        option("Keep audio out of Deepgram's model improvement", env="DEEPGRAM_MIP_OPT_OUT"),
    ] = False
    """``deepgram_mip_opt_out`` in a client's URL overrides it."""
    deepgram_tags: Annotated[
        tuple[str, ...], option("Labels of requests in Deepgram's records", env="DEEPGRAM_TAGS")
    ] = ()
    """Those of a client's URL (``tag=``) are added."""
    deepgram_key_in_subprotocol: Annotated[
        bool, option("Send the key as a WebSocket subprotocol, not as an Authorization header")
    ] = False
    """For servers behind something that strips the header."""


def missing(settings: DeepgramSettings) -> str | None:
    """What has to be set before the recognizers can be used, or None."""
    return None if settings.deepgram_api_key else "set DEEPGRAM_API_KEY"


class DeepgramAccess:
    """Address, key and labels: what all requests to Deepgram have in common."""

    def __init__(self, settings: DeepgramSettings, path: str) -> None:
        """Raises ``SettingError`` for an address or a label that cannot be used."""
        base = settings.deepgram_url
        self._service = Service(
            NAME,
            base.rstrip("/") + path,
            url_setting="DEEPGRAM_URL",
            key_setting="DEEPGRAM_API_KEY",
        )
        if urlsplit(base).query:
            raise SettingError("DEEPGRAM_URL", host(base), "it has no query")
        for tag in settings.deepgram_tags:
            if not 0 < len(tag) <= MOST_TAG_CHARACTERS:
                raise SettingError(
                    "DEEPGRAM_TAGS", tag[:50], f"a label has 1 to {MOST_TAG_CHARACTERS} characters"
                )
        self._settings = settings

    async def start(self) -> None:
        """Prepare for connections."""
        await self._service.start()

    async def connect(self, request: StreamRequest, parameters: list[tuple[str, str]]) -> Upstream:
        """Open a connection with these query parameters and those of every request."""
        settings = self._settings
        opt_out = request.mip_opt_out
        if settings.deepgram_mip_opt_out if opt_out is None else opt_out:
            parameters.append(("mip_opt_out", "true"))
        parameters += [("tag", tag) for tag in (*settings.deepgram_tags, *request.labels)]
        key = settings.deepgram_api_key or ""
        url = f"{self._service.url}?{urlencode(parameters)}"
        if settings.deepgram_key_in_subprotocol:
            return await self._service.connect(url, headers={}, subprotocols=("token", key))
        return await self._service.connect(url, headers={"Authorization": f"Token {key}"})


class DeepgramRecognizer(Recognizer):
    """Opens ``/v1/listen`` streams; raises ``SettingError`` for settings it cannot use."""

    name: ClassVar[str] = "deepgram"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    def __init__(self, settings: DeepgramSettings) -> None:
        self._settings = settings
        self._access = DeepgramAccess(settings, "/v1/listen")
        self._numbers = itertools.count(1)
        self.counts: DeepgramCounts = DeepgramCounts()
        """For metrics; only grows."""

    @property
    def wants(self) -> AudioWanted:
        return PCM

    def wants_for(self, source: Source) -> AudioWanted:
        """Packets as they came, unless they are to be decoded or there are none."""
        if source == "pcm" or self._settings.deepgram_encoding == "linear16":
            return PCM
        return AudioWanted(encoding=source, rate_hz=48000)

    async def start(self) -> None:
        await self._access.start()

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        wanted = self.wants_for(request.source)
        connection = await self._access.connect(request, self._parameters(request, wanted))
        return DeepgramStream(
            connection,
            wanted,
            lambda: f"{request.track}-{next(self._numbers)}",
            self._settings.deepgram_include_language,
            self.counts,
            emit,
        )

    def _parameters(self, request: StreamRequest, wanted: AudioWanted) -> list[tuple[str, str]]:
        settings = self._settings
        language = request.language or settings.deepgram_language
        parameters = [
            ("channels", "1"),
            ("interim_results", "true"),
            ("model", settings.deepgram_model),
            ("language", language),
            ("punctuate", _flag(settings.deepgram_punctuate)),
            ("diarize", _flag(settings.deepgram_diarize)),
        ]
        if wanted.encoding != "ogg":  # a container says it itself
            encoding = "linear16" if wanted.encoding == "pcm16" else "opus"
            parameters += [("encoding", encoding), ("sample_rate", str(wanted.rate_hz))]
        if language == MULTILINGUAL:
            parameters.append(("endpointing", str(MULTILINGUAL_ENDPOINTING_MS)))
        return parameters


def _flag(value: bool) -> str:
    return "true" if value else "false"
