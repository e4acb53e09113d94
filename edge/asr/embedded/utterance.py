"""What a stream knows about one utterance."""

from __future__ import annotations

from collections.abc import Callable

from edge.asr.embedded.messages import Answer
from edge.asr.embedded.segmenter import Closed


class Utterance:
    """A segment from its first speech to its final."""

    def __init__(self, segment: int, item_id: str) -> None:
        self.segment = segment
        self.item_id = item_id
        self.guess: int | None = None
        """The speculative request that would be the final if speech is really over."""
        self.interim: int | None = None
        self.interim_at = 0
        """Position of the audio's end at the last interim."""
        self.closed: Closed | None = None
        self.answer: Answer | None = None
        """Answer to the guess or to the final."""
        self.ask_next: Callable[[], None] | None = None
        """Requests the final of the next utterance, which waits for this one as its context."""

    @property
    def length(self) -> int:
        """Samples of a closed utterance."""
        return self.closed.end - self.closed.start if self.closed is not None else 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """What the next utterance may go on from; nothing when this one was no likely speech."""
        return self.answer.tokens if self.answer is not None and self.answer.is_likely else ()
