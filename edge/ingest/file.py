"""A whole file of speech, heard like a speaker who talks as fast as recognizers can listen.

Comes in: WAV, or Opus in Ogg or WebM, as bytes. Goes out: what was said, with its times. It is a
session like any other: with tracks, a log, followers and metrics. ``edge.api`` calls it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import msgspec

from edge.audio.container import Container, UnusableContainer
from edge.audio.pcm import PcmFormat
from edge.ingest.door import provider_of
from edge.ingest.listen_audio import CLOCK_HZ
from edge.ingest.pace import Waiting
from edge.ingest.realtime_session import MODELS
from edge.ingest.voice import PIECE_BYTES, expanded
from edge.ingest.wav_header import BadWav, is_wav, read_header
from edge.logs import Repeats, get_logger
from edge.session.attachment import Attachment
from edge.session.interface import Quota, SessionHost, SessionRequest, SpokenLine, TagFailure
from edge.transport.interface import Close

PIECE_MS = 200
MOST_FILES = 4
"""Files that a worker listens to at once."""
FINISH_WITHIN_S = 120.0
"""For what recognizers still owe when all of a file was given to them."""
_EBML = b"\x1a\x45\xdf\xa3"
_OTHERS = {
    b"fLaC": "FLAC",
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf2": "MP3",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"FORM": "AIFF",
    b"#!AMR": "AMR",
}

_log = get_logger("edge.ingest.file")


class UnusableFile(Exception):
    """It cannot be heard, and never will be; ``str()`` says why."""


class NotHeard(Exception):
    """It could not be heard now; ``str()`` says why."""


class Refused(NotHeard):
    """No recognizer takes it: what was asked for, or the gateway's settings, are to blame."""


class UsedUp(NotHeard):
    """Whoever asks may have no more audio heard."""


class FileAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be heard as what."""

    session: str | None = None
    """None: a session of its own, with a random name."""
    speaker: str = "speaker"
    provider: str | None = None
    language: str | None = None
    quota: Quota | None = None
    """What its audio counts against."""


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance; times are milliseconds of the file."""

    text: str
    start_ms: float
    end_ms: float
    confidence: float | None = None
    language: str | None = None


class FileHeard(msgspec.Struct, frozen=True, kw_only=True):
    """All that was said, in the order of its beginnings."""

    said: tuple[Spoken, ...]
    duration_ms: float
    session: str


_FAILURES: dict[str, type[NotHeard]] = {"recognizer_failed": Refused, "quota": UsedUp}


class _Outlet:
    """Hears what the file's session says."""

    def __init__(self, tell: Callable[[Spoken], None] | None) -> None:
        self._tell = tell
        self.attachment: Attachment | None = None
        self.said: list[Spoken] = []
        self.failure: NotHeard | None = None
        self.is_open = True

    def check(self) -> None:
        """Raise what keeps the file from being heard, if anything does."""
        if self.failure is not None:
            raise self.failure

    def transcript(self, line: SpokenLine) -> bool:
        if not line.transcript.is_final or self.attachment is None:
            return False
        spoken = Spoken(
            text=line.transcript.text,
            start_ms=max(0.0, self.attachment.client_ms(line.start_ms)),
            end_ms=max(0.0, self.attachment.client_ms(line.end_ms)),
            confidence=line.transcript.confidence,
            language=line.transcript.language,
        )
        self.said.append(spoken)
        if self._tell is not None:
            self._tell(spoken)
        return True

    def record(self, line: SpokenLine) -> bool:
        return False

    def missed(self, line: SpokenLine) -> bool:
        return True

    def tag_failed(self, failure: TagFailure) -> None:
        self.failure = _FAILURES.get(failure.code, NotHeard)(failure.message)

    def superseded(self) -> None:
        self.failure = NotHeard("Somebody else speaks as this speaker of the session now")

    def deleted(self) -> None:
        self.failure = NotHeard("The session was deleted")

    def command(self, op: str, body: bytes) -> bytes | None:
        return None


class FileListener:
    """Hears one worker's files."""

    def __init__(self, host: SessionHost, most_s: float) -> None:
        self._host = host
        self._most_ms = most_s * 1000
        self._listening = 0
        self._repeats = Repeats(_log)

    def provider_of(self, model: str) -> str | None:
        """The recognizer that a model of the request stands for, None for any.

        Raises ``LookupError`` with the names of those that there are.
        """
        offer = self._host.offer
        try:
            return provider_of(model, MODELS, offer.available_providers, offer.aliases)
        except LookupError:
            raise LookupError(", ".join(offer.available_providers)) from None

    def check(self, audio: memoryview) -> None:
        """Look whether a file can be heard, as far as its beginning tells; ``UnusableFile``."""
        if _Pieces(audio).duration_ms > self._most_ms:
            raise self._too_long()

    async def listen(
        self, audio: memoryview, ask: FileAsk, tell: Callable[[Spoken], None] | None = None
    ) -> FileHeard:
        """Hear a file to its end; ``tell`` is told each utterance when it is final.

        Raises ``UnusableFile`` and ``NotHeard``. Cancelling it ends the session at once.
        """
        pieces = _Pieces(audio)
        if pieces.duration_ms > self._most_ms:
            raise self._too_long()
        session = ask.session or str(uuid4())
        if self._listening >= MOST_FILES or not self._host.has_room(session, ask.speaker):
            raise NotHeard("The gateway is listening to as many files as it can; try again later")
        request = SessionRequest(
            session_id=session,
            speaker=ask.speaker,
            provider=ask.provider,
            language=ask.language,
            quota=ask.quota,
        )
        if problem := self._host.problem(request):
            raise Refused(problem)
        outlet = _Outlet(tell)
        attachment = self._host.attach(request, outlet)
        if attachment is None:
            raise NotHeard("The gateway is stopping; try again in a moment")
        outlet.attachment = attachment
        self._listening += 1
        try:
            duration_ms = await self._feed(attachment, ask.speaker, pieces, outlet)
            await attachment.finish(FINISH_WITHIN_S)
            outlet.check()
        finally:
            self._listening -= 1
            outlet.is_open = False
            attachment.ended = True
            attachment.discard()
            self._host.release(attachment, Close(1000))
        outlet.said.sort(key=lambda spoken: spoken.start_ms)
        return FileHeard(said=tuple(outlet.said), duration_ms=duration_ms, session=session)

    async def _feed(
        self, attachment: Attachment, speaker: str, pieces: _Pieces, outlet: _Outlet
    ) -> float:
        attachment.restart(speaker, pieces.pcm, container=pieces.container)
        track = attachment.tracks.get(speaker)
        waiting = Waiting()
        for at, piece in pieces:
            if track is None or outlet.failure is not None:
                break  # it is told below
            now_s = time.monotonic()
            try:
                track.packet(None, at, piece, now_s)
            except UnusableContainer as problem:
                raise UnusableFile(f"It is no audio that can be heard: {problem}") from None
            if track.audio.end_ms > self._most_ms:
                raise self._too_long()
            wait_s = waiting.begin((track,), now_s) if track.audio.crowding >= 1.0 else 0.0
            await asyncio.sleep(wait_s)
            while wait_s:
                now_s = time.monotonic()
                track.audio.excuse(now_s)
                wait_s = waiting.go_on(now_s)
                await asyncio.sleep(wait_s)
        outlet.check()
        if track is None:
            raise NotHeard("No recognizer hears it")
        if not track.audio.end_ms:
            raise UnusableFile("There is no audio in it")
        return max(track.audio.end_ms, pieces.duration_ms)

    def _too_long(self) -> UnusableFile:
        return UnusableFile(f"It plays longer than the {self._most_ms / 1000:g} s that are allowed")


class _Pieces:
    """A file cut into what a track takes at once, each piece with its media time."""

    def __init__(self, audio: memoryview) -> None:
        self.pcm: PcmFormat | None = None
        self.container: Container | None = None
        self.duration_ms = 0.0
        """As far as it is known before."""
        self._audio = audio
        head = bytes(audio[:16])
        if is_wav(head):
            self._open_wav()
        elif head.startswith(b"OggS"):
            self.container = "ogg"
        elif head.startswith(_EBML):
            self.container = "webm"
        else:
            raise UnusableFile(_unknown(head))

    def __iter__(self) -> Iterator[tuple[int | None, bytes]]:
        if self.pcm is None:
            for start in range(0, len(self._audio), PIECE_BYTES):
                yield None if start else 0, bytes(self._audio[start : start + PIECE_BYTES])
            return
        form = self._form
        frames = form.rate_hz * PIECE_MS // 1000
        size, samples = frames * form.frame_bytes, 0
        for start in range(0, len(self._audio), size):
            piece = expanded(form, bytes(self._audio[start : start + size]))
            yield samples * CLOCK_HZ // form.rate_hz, piece
            samples += frames

    def _open_wav(self) -> None:
        try:
            header = read_header(self._audio)
        except BadWav as problem:
            raise UnusableFile(f"This WAV file cannot be heard: {problem}") from None
        if header is None:
            raise UnusableFile("This WAV file ends before its samples begin")
        self._form = form = header.form
        end = len(self._audio) if header.size is None else header.offset + header.size
        samples = self._audio[header.offset : end]
        self._audio = samples[: len(samples) - len(samples) % form.frame_bytes]
        self.pcm = PcmFormat(rate_hz=form.rate_hz, channels=form.channels)
        self.duration_ms = len(self._audio) // form.frame_bytes * 1000 / form.rate_hz


def _unknown(head: bytes) -> str:
    kind = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), "")
    if head[4:8] == b"ftyp":
        kind = "MP4"
    found = f"This is {kind}. " if kind else ""
    return (
        f"Invalid file format. {found}Supported formats: ['wav', 'ogg', 'webm'] (16-bit PCM or "
        "G.711 in WAV, Opus in Ogg or WebM)"
    )
