"""The items of one OpenAI transcription session: their text, confidence, audio times and order.

Comes in: what was sent, and the server's events. Goes out: interims with the text so far, and
finals in the order in which their audio was spoken. No input or output of its own; only
``edge.asr.openai_stream`` calls it. All times are milliseconds of audio since the first sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edge.asr.interface import Final, Interim
from edge.asr.openai_events import BYTES_PER_MS, LogProb

MOST_OPEN_ITEMS = 64
"""Items without a final that are remembered; the service has one or two at a time."""
ROUNDING_MS = 1.0
"""The service counts in whole milliseconds."""
LEAST_COMMIT_MS = 100.0
"""The service refuses to commit less audio than this."""


class Item:
    """A stretch of speech on its way to becoming text."""

    __slots__ = (
        "committed",
        "end_ms",
        "final",
        "guessed",
        "item_id",
        "logprob",
        "start_ms",
        "text",
        "tokens",
    )

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.start_ms: float | None = None
        self.end_ms: float | None = None
        self.committed = False
        self.guessed = False
        """Whether nothing but its arrival says where it ends."""
        self.text = ""
        self.logprob = 0.0
        """Sum over ``tokens`` tokens."""
        self.tokens = 0
        self.final: Final | None = None

    def count(self, logprobs: Sequence[LogProb] | None) -> None:
        """Add these tokens to the confidence."""
        for entry in logprobs or ():
            self.logprob += entry.logprob
            self.tokens += 1

    @property
    def confidence(self) -> float | None:
        """The exponential of the mean logarithmic probability, if any is known."""
        if not self.tokens:
            return None
        return math.exp(min(self.logprob / self.tokens, 0.0))


class ItemBook:
    """Follows the items of one session."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._order: list[Item] = []
        """Committed items whose final has not been let out, as they were spoken."""
        self._late: list[Item] = []
        """Committed items that nothing waits for any longer; they may get their text yet."""
        self._commits: list[float] = []
        """Positions of our commits that the service has not answered."""
        self._speaking: Item | None = None
        """The item whose speech has started and not stopped."""
        self._sent_bytes = 0
        self.sound_ms = 0.0
        """Where the last audio ends that was not all zeros."""
        self._boundary_ms = 0.0
        """Up to here all audio belongs to an item."""
        self._sure_ms = 0.0
        """How far the items reach that were let out, as far as that is known."""
        self.evicted = 0
        """Items forgotten because too many were open."""

    @property
    def sent_ms(self) -> float:
        """Audio sent so far."""
        return self._sent_bytes / BYTES_PER_MS

    @property
    def settled(self) -> bool:
        """Whether the service owes nothing: no answer to a commit, no text of an item."""
        return not (self._commits or self._order or self._late)

    @property
    def is_open(self) -> bool:
        """Whether speech has begun, or anything is owed."""
        return self._speaking is not None or not self.settled

    @property
    def holds_back(self) -> bool:
        """Whether a finished final waits for an earlier item."""
        return any(item.final is not None for item in self._order)

    def sent(self, audio: bytes) -> None:
        """This audio is on its way, after all audio before it."""
        sounding = len(audio.rstrip(b"\0"))
        if sounding:
            self.sound_ms = (self._sent_bytes + sounding) / BYTES_PER_MS
        self._sent_bytes += len(audio)

    def commit(self) -> bool:
        """Note a commit of all that was sent; False when there is nothing worth committing."""
        after_ms = max(self._boundary_ms, self._commits[-1] if self._commits else 0.0)
        if self.sound_ms <= after_ms or self.sent_ms - after_ms < LEAST_COMMIT_MS:
            return False
        self._commits.append(self.sent_ms)
        return True

    def commit_refused(self) -> None:
        """The service had nothing to commit."""
        if self._commits:
            self._boundary_ms = max(self._boundary_ms, self._commits.pop(0))

    def speech_started(self, item_id: str, start_ms: float) -> None:
        """The audio of a new item starts here."""
        self._speaking = self._item(item_id)
        self._speaking.start_ms = start_ms

    def speech_stopped(self, item_id: str, end_ms: float) -> None:
        """The audio of an item ends here; it will be committed."""
        self._item(item_id).end_ms = end_ms
        self._speaking = None

    def committed(self, item_id: str) -> None:
        """An item is complete, by silence if its end is known, else by our oldest commit.

        Ours may come amid speech: its item then has another id than the one that was announced.
        """
        item = self._item(item_id)
        if item.committed:
            return
        if item.end_ms is None:
            item.guessed = not self._commits
            item.end_ms = self._commits.pop(0) if self._commits else self.sent_ms
            announced, self._speaking = self._speaking, None
            if announced is not None and announced is not item:
                item.start_ms = announced.start_ms
                self._items.pop(announced.item_id, None)
        item.start_ms = max(item.start_ms or 0.0, self._boundary_ms)
        item.committed = True
        self._boundary_ms = max(self._boundary_ms, item.end_ms)
        while self._commits and self._commits[0] < self._boundary_ms + ROUNDING_MS:
            self._commits.pop(0)
        self._order.append(item)

    def delta(self, item_id: str, text: str, logprobs: Sequence[LogProb] | None) -> Interim | None:
        """More text of an item: the interim to emit, if it is not blank."""
        item = self._item(item_id)
        item.text += text
        item.count(logprobs)
        if not item.text.strip():
            return None
        return Interim(item_id=item_id, text=item.text.strip(), confidence=item.confidence)

    def completed(
        self,
        item_id: str,
        text: str,
        logprobs: Sequence[LogProb] | None,
        language: str | None,
    ) -> list[Final]:
        """The text of an item: the finals to emit now, in order."""
        item = self._items.pop(item_id, None) or Item(item_id)
        if logprobs:
            item.logprob, item.tokens = 0.0, 0
            item.count(logprobs)
        if not item.committed and item.end_ms is None and self._commits:
            item.end_ms = self._commits.pop(0)
        if item.end_ms is None:
            item.guessed = True
        start_ms = self._boundary_ms if item.start_ms is None else item.start_ms
        if not item.committed:
            start_ms = max(start_ms, self._boundary_ms)
        end_ms = self.sent_ms if item.end_ms is None else item.end_ms
        end_ms = min(max(end_ms, 0.0), self.sent_ms)
        self._boundary_ms = max(self._boundary_ms, end_ms)
        item.final = Final(
            item_id=item_id,
            text=text.strip(),
            start_ms=max(min(start_ms, end_ms), 0.0),
            end_ms=end_ms,
            confidence=item.confidence,
            language=language,
        )
        if self._speaking is item:
            self._speaking = None
        if item in self._order:
            return self._release()
        if item in self._late:
            self._late.remove(item)
        return [self._let_out(item, item.final)]

    def failed(self, item_id: str) -> list[Final]:
        """An item gets no text: the finals that waited for it."""
        item = self._items.pop(item_id, None)
        if item is not None:
            self._drop(item)
        return self._release()

    def give_up_waiting(self) -> list[Final]:
        """Finals that waited too long for earlier items; those are emitted whenever they come."""
        while self._order and self._order[0].final is None and self.holds_back:
            self._late.append(self._order.pop(0))
        return self._release()

    def _release(self) -> list[Final]:
        finals = []
        while self._order and (final := self._order[0].final) is not None:
            finals.append(self._let_out(self._order.pop(0), final))
        return finals

    def _let_out(self, item: Item, final: Final) -> Final:
        """The final, with how far audio is dealt with when it is let out."""
        sure_ms = final.start_ms if item.guessed else final.end_ms
        self._sure_ms = max(self._sure_ms, sure_ms)
        waiting = [each.start_ms or 0.0 for each in (*self._late, *self._order)]
        dealt_ms = min(self._sure_ms, *waiting) if waiting else self._sure_ms
        if dealt_ms == final.end_ms:
            return final
        return msgspec.structs.replace(final, dealt_ms=dealt_ms)

    def _drop(self, item: Item) -> None:
        for items in (self._late, self._order):
            if item in items:
                items.remove(item)
        if self._speaking is item:
            self._speaking = None

    def _item(self, item_id: str) -> Item:
        item = self._items.get(item_id)
        if item is None:
            if len(self._items) >= MOST_OPEN_ITEMS:
                self._evict()
            item = self._items[item_id] = Item(item_id)
        return item

    def _evict(self) -> None:
        item = self._items.pop(next(iter(self._items)))
        self._drop(item)
        self.evicted += 1
