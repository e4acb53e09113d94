"""Fun-ASR transcription on Alibaba Cloud's DashScope: one WebSocket per track.

Comes in: mono PCM at 16 kHz. Goes out: interims, and finals with the times DashScope measured.
``edge.asr.registry`` builds it. Source: Alibaba Cloud Model Studio, WebSocket API for Fun-ASR
realtime speech recognition.
"""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal

import msgspec

from edge.asr.funasr_events import NAME, RATE_HZ, parameters
from edge.asr.funasr_stream import FunASRCounts, FunASRStream, TaskForm
from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.asr.service import Service
from edge.errors import RecognizerTimeout
from edge.option import option

MOST_START_S = 15.0


class FunASRSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Access to Fun-ASR on DashScope and how audio is sent to it."""

    funasr_api_key: Annotated[
        str | None, option("Key of DashScope", env="ALIYUN_DASHSCOPE_API_KEY", secret=True)
    ] = None
    """Makes the recognizer available."""
    funasr_enabled: Annotated[bool, option("Offer the recognizer funasr", env="ASR_ENABLED")] = True
    funasr_model: Annotated[str, option("Recognition model", env="ASR_MODEL")] = (
        "fun-asr-realtime-2025-11-07"
    )
    funasr_url: Annotated[
        str, option("Address of DashScope's WebSocket endpoint", env="ASR_WS_URL")
    ] = "wss://dashscope.aliyuncs.com/api-ws/v1/inference/"
    """Another region, a workspace's own domain or a proxy may stand here; ws or wss."""
    funasr_timeout_ms: Annotated[
        int,
        option(
            "How long the start of a task may take, at most 15000; 0 is 15000",
            env="ASR_TIMEOUT_MS",
            ge=0,
        ),
    ] = 45000
    funasr_frame_bytes: Annotated[
        int,
        option(
            "Most audio in one message, in bytes", env="ASR_STREAM_CHUNK_BYTES", ge=320, le=65536
        ),
    ] = 12800
    """Smaller pieces are sent as they come, not collected."""
    funasr_pacing_ms: Annotated[
        int,
        option("Least time between two messages of audio", env="ASR_SEND_PACING_MS", ge=0, le=1000),
    ] = 0
    """Audio that waits is sent in messages as large as they may be."""


def missing(settings: FunASRSettings) -> str | None:
    """What has to be set before the recognizer can be used, or None."""
    if not settings.funasr_enabled:
        return "set ASR_ENABLED=true"
    return None if settings.funasr_api_key else "set ALIYUN_DASHSCOPE_API_KEY"


class FunASRRecognizer(Recognizer):
    """Opens recognition tasks; raises ``SettingError`` for settings it cannot use."""

    name: ClassVar[str] = "funasr"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    def __init__(self, settings: FunASRSettings) -> None:
        self._settings = settings
        self._service = Service(
            NAME,
            settings.funasr_url,
            url_setting="ASR_WS_URL",
            key_setting="ALIYUN_DASHSCOPE_API_KEY",
        )
        self._items = itertools.count(1)
        self.counts: FunASRCounts = FunASRCounts()
        """For metrics; only grows."""

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=RATE_HZ)

    async def start(self) -> None:
        await self._service.start()

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        """See ``Recognizer.open``; it returns when the service has started a task."""
        key = self._settings.funasr_api_key or ""
        connection = await self._service.connect(headers={"Authorization": f"bearer {key}"})
        form = self._form(request.language)
        stream = FunASRStream(
            connection,
            form,
            lambda: f"{request.track}-{next(self._items)}",
            self.counts,
            emit,
        )
        try:
            await stream.opened()
        except BaseException as error:
            await stream.close()
            if isinstance(error, TimeoutError):
                limit_s = form.start_timeout_s
                raise RecognizerTimeout(f"{NAME} started no task within {limit_s:g} s") from error
            raise
        return stream

    def _form(self, language: str | None) -> TaskForm:
        settings = self._settings
        timeout_s = settings.funasr_timeout_ms / 1000 or MOST_START_S
        return TaskForm(
            model=settings.funasr_model,
            parameters=parameters(language),
            start_timeout_s=min(timeout_s, MOST_START_S),
            frame_bytes=settings.funasr_frame_bytes & ~1,
            pacing_s=settings.funasr_pacing_ms / 1000,
        )
