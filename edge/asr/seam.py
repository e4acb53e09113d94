"""Where one connection's text ends and the next one's begins: nothing lost, nothing told twice.

Comes in: finals in audio time of the track, and when a new connection begins. Goes out: what of
each text is new, and from where audio must be kept. No input or output of its own; only the
supervisor calls it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

GUESS_MS = 2000.0
"""How far an estimated time may be off."""
ROUNDING_MS = 50.0
"""How far an exact one may be: a recognizer looks at frames, not at samples."""
MOST_TOLD = 64
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|"
    r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
    r"(?:['\u2019][^\W\d_]+)*"
)
"""A word; of scripts that write none apart, a character."""


class Told(msgspec.Struct, frozen=True):
    """A final that has been handed on, though its audio may be heard again."""

    start_ms: float
    end_ms: float
    words: tuple[str, ...]


class Seam:
    """What a track's connections have told so far. Times are audio milliseconds of the track."""

    def __init__(self) -> None:
        self.mark_ms = 0.0
        """No audio before this is needed again."""
        self._told: list[Told] = []
        """Finals of this connection that reach beyond the mark."""
        self._told_before: list[Told] = []
        """Finals of earlier connections that reach beyond where this one began."""
        self._begin_ms = 0.0
        self._exact = True

    def begin(self, *, exact: bool) -> None:
        """A new connection begins at the mark; ``exact`` says that its times are measured."""
        told = [*self._told_before, *self._told]
        self._told_before = [each for each in told if each.end_ms > self.mark_ms]
        self._told = []
        self._begin_ms = self.mark_ms
        self._exact = exact

    def settle(self, until_ms: float) -> None:
        """All audio before this has been heard and has its text."""
        self.mark_ms = max(self.mark_ms, until_ms)
        self._told = [each for each in self._told if each.end_ms > self.mark_ms]
        self._told_before = [each for each in self._told_before if each.end_ms > self.mark_ms]

    def interim(self, text: str) -> str:
        """What of an interim is new; blank if nothing is."""
        words = [word for each in self._told_before for word in each.words]
        return unsaid(words, text) if words else text

    def final(self, start_ms: float, end_ms: float, dealt_ms: float, text: str) -> str:
        """Take a final; what of its text is new, blank if nothing is."""
        fresh = self._fresh(start_ms, end_ms, text) if text.strip() else ""
        if not self._exact:
            dealt_ms = min(dealt_ms, end_ms - GUESS_MS)
        if fresh:
            self._told.append(Told(start_ms, end_ms, words_of(text)))
            del self._told[:-MOST_TOLD]
        self.settle(dealt_ms)
        return fresh

    def _fresh(self, start_ms: float, end_ms: float, text: str) -> str:
        if self._exact and end_ms <= self._begin_ms:
            return ""
        slack_ms = ROUNDING_MS if self._exact else GUESS_MS
        again = [
            each
            for each in self._told_before
            if each.start_ms < end_ms + slack_ms and each.end_ms > start_ms - slack_ms
        ]
        if not again:
            return text
        if self._exact and any(
            each.start_ms - slack_ms <= start_ms and end_ms <= each.end_ms + slack_ms
            for each in again
        ):
            return ""
        return unsaid([word for each in again for word in each.words], text)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text as they compare: no case, no punctuation."""
    return tuple(match[0].casefold() for match in _WORD.finditer(text))


def unsaid(told: Sequence[str], text: str) -> str:
    """The text without the words at its seam that ``told`` ends with, or that it contains whole.

    Best effort: a text heard differently the second time stays as it is, and a word that is said
    again right at the seam may be taken for the first one.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    words = words_of(text)
    if not words:
        return text
    first, last = _overlap(tuple(told), words)
    if first == last:
        return text
    head = text[: spans[first][0]].rstrip() if first else ""
    tail = text[spans[last][0] :] if last < len(words) else ""
    return f"{head} {tail}".strip()


def _overlap(told: tuple[str, ...], words: tuple[str, ...]) -> tuple[int, int]:
    """The range of ``words`` that is known: the longest that begins or ends where ``told`` does."""
    for size in range(min(len(told), len(words)), 0, -1):
        if told[-size:] == words[:size]:
            return 0, size
        if size == len(told) or size == len(words):
            inside = _find(told, words) if size == len(told) else _find(words, told)
            if inside is not None:
                return (inside, inside + size) if size == len(told) else (0, size)
        cut = size < len(words) and size > 1 and told[-size:] == words[1 : size + 1]
        if cut:  # the first word heard again was cut
            return 0, size + 1
    return 0, 0


def _find(part: tuple[str, ...], whole: tuple[str, ...]) -> int | None:
    for start in range(len(whole) - len(part) + 1):
        if whole[start : start + len(part)] == part:
            return start
    return None
