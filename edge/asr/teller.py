"""From what recognizers say to what a track's listener hears: each thing once, under one name.

Comes in: events of one connection after another. Goes out: transcripts in audio time of the track,
and from where audio must be kept. Only the supervisor calls it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

import msgspec

from edge.asr.interface import Final, Interim
from edge.asr.link import Link
from edge.asr.observer import RecognizerObserver
from edge.asr.seam import Seam
from edge.asr.transcript import Transcript
from edge.errors import RecognizerError

MOST_OPEN_ITEMS = 64
"""Items without a final that are remembered."""


class TranscriptListener(Protocol):
    """What a supervisor tells its session; called on the event loop, must not block."""

    def interim(self, transcript: Transcript) -> None:
        """The text so far of something still being said."""
        ...

    def final(self, transcript: Transcript) -> None:
        """The finished text of something said, as a rule in spoken order."""
        ...

    def failed(self, error: RecognizerError) -> None:
        """Every recognizer has refused for good; nothing follows. Called once at most."""
        ...


class Utterance(msgspec.Struct, frozen=True):
    """How something that has no final yet is known to the listener."""

    item_id: str
    first_heard_ms: int
    """Unix ms of its first interim."""


class Teller:
    """Tells one track's transcripts."""

    def __init__(self, listener: TranscriptListener, observer: RecognizerObserver) -> None:
        self._listener = listener
        self._observer = observer
        self._seam = Seam()
        self._open: dict[str, Utterance] = {}
        """What the current connection has begun to tell, by its item."""
        self._interrupted: deque[Utterance] = deque()
        """What earlier connections had begun to tell, as it was spoken: it will be told again."""
        self._interrupted_until_ms = 0.0

    @property
    def mark_ms(self) -> float:
        """Audio before this is not needed again."""
        return self._seam.mark_ms

    def begin(self, *, exact: bool) -> None:
        """A connection begins at the mark; ``exact`` says that its times are measured."""
        self._seam.begin(exact=exact)

    def settle(self, until_ms: float) -> None:
        """All audio before this has been heard and has its text."""
        self._seam.settle(until_ms)

    def interrupt(self, until_ms: float) -> None:
        """The connection, which was given audio up to here, ends; another tells on."""
        self._interrupted.extendleft(reversed(self._open.values()))
        self._interrupted_until_ms = max(self._interrupted_until_ms, until_ms)
        self._open.clear()

    def interim(self, link: Link, interim: Interim) -> None:
        """Tell what is new of an interim."""
        text = self._seam.interim(interim.text)
        if not text.strip():
            return
        now_ms = _unix_ms()
        utterance = self._open.get(interim.item_id)
        if utterance is None:
            if len(self._open) >= MOST_OPEN_ITEMS:
                del self._open[next(iter(self._open))]
            utterance = self._open[interim.item_id] = self._utterance(interim.item_id, now_ms)
        self._observer.received(link.provider, True)
        self._listener.interim(
            Transcript(
                provider=link.provider,
                item_id=utterance.item_id,
                text=text,
                is_final=False,
                start_ms=self.mark_ms,
                end_ms=max(link.position_ms, self.mark_ms),
                timestamp_unix_ms=now_ms,
                confidence=interim.confidence,
                language=interim.language,
                speaker=interim.speaker,
            )
        )

    def final(self, link: Link, final: Final) -> None:
        """Move the mark, and tell what is new of a final."""
        start_ms, end_ms = link.audio_ms(final.start_ms), link.audio_ms(final.end_ms)
        dealt_ms = end_ms if final.dealt_ms is None else link.audio_ms(final.dealt_ms)
        text = self._seam.final(start_ms, end_ms, dealt_ms, final.text)
        link.cover(end_ms)
        utterance = self._open.pop(final.item_id, None)
        if not text.strip():
            return
        utterance = utterance or self._utterance(final.item_id, _unix_ms())
        if end_ms >= self._interrupted_until_ms:
            self._interrupted.clear()
        self._observer.received(link.provider, False)
        self._listener.final(
            Transcript(
                provider=link.provider,
                item_id=utterance.item_id,
                text=text,
                is_final=True,
                start_ms=start_ms,
                end_ms=end_ms,
                timestamp_unix_ms=utterance.first_heard_ms,
                confidence=final.confidence,
                language=final.language,
                speaker=final.speaker,
            )
        )

    def _utterance(self, item_id: str, now_ms: int) -> Utterance:
        """Something new, or what an earlier connection had begun to tell under another id."""
        return self._interrupted.popleft() if self._interrupted else Utterance(item_id, now_ms)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
