"""Utterances of one role that say the same, or of which one goes on with the other, made one.

Comes in: utterances in any order. Goes out: a shorter list in the order of time. Windows overlap,
so that what is said twice is in several utterances; but a word that only one of them has is never
lost, nor is it doubled. Merging what was merged changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from edge.meeting.records import Merged, Utterance
from edge.meeting.tokens import Token, tokenize, words

MIN_SHARED = 3
"""Words that two texts share before they are stitched."""
MAX_SHARED = 256
"""Words looked through for what is shared: more than twenty seconds of quick Chinese."""
_INDEXED = 256
"""Words of a text from which on it is worth knowing where each of them stands."""

_Key: TypeAlias = tuple[int, int, str, str, int, int]


def merge(utterances: Iterable[Utterance]) -> list[Merged]:
    """Merge the utterances of one role, whatever order they come in."""
    merging = Merging()
    for utterance in utterances:
        merging.add(utterance)
    return list(merging.merged())


class Merging:
    """Utterances of one role that become more; one more in the order of time costs little."""

    def __init__(self) -> None:
        self._utterances: list[Utterance] = []
        self._folded = 0
        """How many of them are in the passages."""
        self._last: _Key | None = None
        self._passages: list[_Passage] = []
        self._merged: list[Merged] = []
        self._settled = 0
        """Passages whose ``Merged`` is up to date."""

    def add(self, utterance: Utterance) -> None:
        """One more utterance, in any order."""
        self._utterances.append(utterance)

    def merged(self) -> Sequence[Merged]:
        """All of them merged; not to be changed, nor kept."""
        fresh = sorted(self._utterances[self._folded :], key=_key)
        if fresh and self._last is not None and _key(fresh[0]) < self._last:
            fresh = sorted(self._utterances, key=_key)
            self._passages.clear()
            self._settled = 0
        for utterance in fresh:
            self._fold(utterance)
        if fresh:
            self._last = _key(fresh[-1])
        self._folded = len(self._utterances)
        self._merged[self._settled :] = [each.merged() for each in self._passages[self._settled :]]
        self._settled = len(self._passages)
        return self._merged

    def _fold(self, utterance: Utterance) -> None:
        if not utterance.text.strip():
            return
        passages, waiting = self._passages, [_Passage(utterance)]
        while waiting:
            passage = waiting.pop(0)
            while passages and passages[-1].key() > passage.key():
                waiting.append(passages.pop())
            waiting.sort(key=_Passage.key)
            self._settled = min(self._settled, len(passages))
            passages.append(passage)
            self._join()

    def _join(self) -> None:
        """Let the last passage become part of the one before it, and that one likewise."""
        passages = self._passages
        while len(passages) > 1:
            text = passages[-2].words
            size = len(text)
            if not passages[-2].take(passages[-1]):
                return
            passages.pop()
            self._settled = min(self._settled, len(passages) - 1)
            if passages[-1].words is text and len(text) == size:
                return


class _Passage:
    """One or more utterances that became one."""

    def __init__(self, first: Utterance) -> None:
        tokens = tokenize(first.text)
        self.first = first
        self.words = [token.word for token in tokens]
        self._pieces = [first.text]
        self._last = tokens[-1] if tokens else None
        """The last word, and where it stands in the last piece."""
        self._tokens: list[Token] | None = tokens
        """Those of the text, as long as it is in one piece."""
        self._places: dict[str, list[int]] | None = None
        """Where each word stands, once the text is long."""
        self._ids = [first.utterance_id]
        self._end_seq = first.end_seq
        self._end_ms = first.end_ms

    def key(self) -> _Key:
        """Where it stands in the order of time."""
        first = self.first
        return (
            first.start_seq,
            self._end_seq,
            first.created_at,
            first.utterance_id,
            first.start_ms,
            self._end_ms,
        )

    def take(self, other: _Passage) -> bool:
        """Make one that follows in the order of time part of this, if they belong together."""
        if other.first.start_seq > self._end_seq + 1:
            return False
        if not self.words or not other.words:
            return False
        is_in = other._is_within(self)
        holds = self._is_within(other)
        if is_in or holds:
            if not (is_in and holds) and not self._overlaps(other):
                return False
            if not is_in:
                self._speak_as(other)
        elif not self._stitch(other):
            return False
        self._end_seq = max(self._end_seq, other._end_seq)
        self._end_ms = max(self._end_ms, other._end_ms)
        self._ids += other._ids
        return True

    def merged(self) -> Merged:
        """What became of them."""
        first = self.first
        return Merged(
            merged_id=f"{first.session_id}-{first.stream_role}-m-{first.end_seq:08d}",
            session_id=first.session_id,
            stream_role=first.stream_role,
            text="".join(self._pieces),
            start_seq=first.start_seq,
            end_seq=self._end_seq,
            start_ms=first.start_ms,
            end_ms=self._end_ms,
            duration_ms=self._end_ms - first.start_ms,
            asr_model=first.asr_model,
            asr_provider=first.asr_provider,
            created_at=first.created_at,
            source_utterance_ids=tuple(self._ids),
        )

    def _overlaps(self, other: _Passage) -> bool:
        """Whether both have been said at one time: a chunk may hold the end of one sentence and,
        after it, the whole of the next."""
        first = other.first
        return first.start_seq <= self._end_seq and first.start_ms < self._end_ms

    def _is_within(self, other: _Passage) -> bool:
        wanted, size = self.words, len(self.words)
        if size > len(other.words):
            return False
        if len(other.words) < _INDEXED:
            return f" {' '.join(wanted)} " in f" {' '.join(other.words)} "
        places = other._known_places()
        found, ahead = min(
            ((places.get(word, ()), at) for at, word in enumerate(wanted)),
            key=lambda pair: len(pair[0]),
        )
        return any(
            place >= ahead and other.words[place - ahead : place - ahead + size] == wanted
            for place in found
        )

    def _known_places(self) -> dict[str, list[int]]:
        if self._places is None:
            self._places = {}
            self._note(0)
        return self._places

    def _note(self, first: int) -> None:
        if self._places is not None:
            for place in range(first, len(self.words)):
                self._places.setdefault(self.words[place], []).append(place)

    def _speak_as(self, other: _Passage) -> None:
        self.words, self._pieces = other.words, other._pieces
        self._last, self._tokens, self._places = other._last, other._tokens, other._places

    def _stitch(self, other: _Passage) -> bool:
        shared = _shared(self.words, other.words)
        if shared < MIN_SHARED or self._last is None:
            return False
        text = "".join(other._pieces)
        tokens = other._tokens or tokenize(text)
        cut = tokens[shared - 1].end
        if tokens[shared].start < cut:
            return False
        known, rest = self._pieces[-1][: self._last.end], text[cut:]
        if not (self._last.is_single and tokens[shared - 1].is_single) and not rest[0].isspace():
            rest = self._joint(rest, other.words[shared:])
        if not rest:
            return False
        moved = len(rest) - len(text)
        self._pieces[-1:] = [known, rest]
        self._last = tokens[-1]._replace(start=tokens[-1].start + moved, end=tokens[-1].end + moved)
        self._tokens = None
        before = len(self.words)
        self.words += other.words[shared:]
        self._note(before)
        return True

    def _joint(self, rest: str, expected: list[str]) -> str:
        """A text that goes on after the last word, with a space if they would grow together;
        empty when even then the words are others."""
        assert self._last is not None
        last = self._pieces[-1][self._last.start : self._last.end]
        for joint in (rest, f" {rest}"):
            if words(last + joint) == [self._last.word, *expected]:
                return joint
        return ""


def _shared(left: Sequence[str], right: Sequence[str]) -> int:
    """How many words the left text ends and the right one begins with."""
    tail = left[-MAX_SHARED:]
    head = right[: len(tail)]
    for place in range(max(0, len(tail) - len(head)), len(tail) - MIN_SHARED + 1):
        size = len(tail) - place
        if tail[place] == head[0] and tail[-1] == head[size - 1] and tail[place:] == head[:size]:
            return size
    return 0


def _key(utterance: Utterance) -> _Key:
    return (
        utterance.start_seq,
        utterance.end_seq,
        utterance.created_at,
        utterance.utterance_id,
        utterance.start_ms,
        utterance.end_ms,
    )
