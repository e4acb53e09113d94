"""The embedded recognizer of one worker: its VAD thread and its line to the inference process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from edge.asr.embedded.client import InferenceClient
from edge.asr.embedded.settings import EmbeddedSettings
from edge.asr.embedded.stream import EmbeddedCounts, EmbeddedStream
from edge.asr.embedded.weights import require_packages
from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.errors import EdgescribeError, RecognizerRefused

if TYPE_CHECKING:
    from edge.asr.embedded.voice_activity import VoiceActivity


class EmbeddedRecognizer(Recognizer):
    """English speech to text on this machine, without key or network.

    The models' libraries are imported at the first ``open``, in a thread: a worker that never needs
    them does not pay for them.
    """

    name: ClassVar[str] = "embedded"
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    def __init__(self, settings: EmbeddedSettings, socket_path: str | Path) -> None:
        """``socket_path`` is where the inference process listens; ``SettingError`` if too long."""
        self._settings = settings
        self._client = InferenceClient(Path(socket_path))
        self._voice: asyncio.Task[VoiceActivity] | None = None
        self._streams = itertools.count(1)
        self._items = itertools.count(1)
        self.counts: EmbeddedCounts = EmbeddedCounts()
        """For metrics; only grows."""

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=16000)

    @property
    def load(self) -> float:
        """Last known load of the machine's inference threads, 0 to 1."""
        return self._client.load

    async def stop(self) -> None:
        await self._client.stop()
        if self._voice is not None:
            loading, self._voice = self._voice, None
            with contextlib.suppress(EdgescribeError):
                await asyncio.to_thread((await loading).stop)

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        """See ``Recognizer.open``.

        ``RecognizerRefused`` for a language other than English, a package that is missing or
        damaged. Otherwise it waits until the inference process has loaded its weights.
        """
        if not speaks(request.language):
            raise RecognizerRefused(
                f"the embedded recognizer only knows English, not lang={request.language}"
            )
        voice = await self._load_voice()
        await self._client.ready()
        return EmbeddedStream(
            next(self._streams),
            request.track,
            self._items,
            self._settings,
            voice,
            self._client,
            self.counts,
            emit,
        )

    async def _load_voice(self) -> VoiceActivity:
        """The VAD, loaded once; loading goes on when the caller is cancelled."""
        if self._voice is None or (self._voice.done() and self._voice.exception()):
            self._voice = asyncio.create_task(asyncio.to_thread(_load), name="load-vad")
        try:
            return await asyncio.shield(self._voice)
        except EdgescribeError as error:
            raise RecognizerRefused(f"embedded recognizer: {error}") from error


def speaks(language: str | None) -> bool:
    """Whether the model can serve a ``lang`` hint: English, or none in particular."""
    if not language:
        return True
    primary = language.replace("_", "-").split("-")[0].lower()
    return primary in ("en", "eng", "english", "auto", "multi")


def _load() -> VoiceActivity:
    require_packages()
    from edge.asr.embedded.voice_activity import VoiceActivity

    return VoiceActivity()
