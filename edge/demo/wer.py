"""Word error rate: the words that would have to be changed, over the words that were said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

_NOT_A_WORD = re.compile(r"[^\w\s']|_|(?<!\w)'|'(?!\w)")


class WordErrors(msgspec.Struct, frozen=True):
    """How a transcript differs from its reference, in words of the cheapest alignment."""

    substituted: int = 0
    deleted: int = 0
    inserted: int = 0
    reference_words: int = 0

    @property
    def errors(self) -> int:
        """Words substituted, deleted or inserted."""
        return self.substituted + self.deleted + self.inserted

    @property
    def rate(self) -> float:
        """Errors over reference words; 0 for nothing said and nothing heard, else 1 per word."""
        return self.errors / max(1, self.reference_words)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
            self.reference_words + other.reference_words,
        )


def words(text: str) -> list[str]:
    """The words of a text, lower-cased and without punctuation; a dash parts words."""
    return _NOT_A_WORD.sub(" ", text.lower().replace("\u2019", "'")).split()


def compare(reference: str, heard: str) -> WordErrors:
    """Compare two texts word by word; case and punctuation don't count."""
    return align(words(reference), words(heard))


def align(reference: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Levenshtein alignment with all three costs 1; of equal paths one with few insertions wins.

    A row holds ``(cost, inserted, deleted, substituted)`` of the best path to each heard prefix.
    """
    row = [(j, j, 0, 0) for j in range(len(heard) + 1)]
    for i, said in enumerate(reference, 1):
        diagonal, row[0] = row[0], (i, 0, i, 0)
        for j, got in enumerate(heard, 1):
            above, left = row[j], row[j - 1]
            if said == got:
                best = diagonal
            else:
                best = min(
                    (diagonal[0] + 1, diagonal[1], diagonal[2], diagonal[3] + 1),
                    (above[0] + 1, above[1], above[2] + 1, above[3]),
                    (left[0] + 1, left[1] + 1, left[2], left[3]),
                )
            diagonal, row[j] = above, best
    _, inserted, deleted, substituted = row[-1]
    return WordErrors(substituted, deleted, inserted, len(reference))


def total(parts: Iterable[WordErrors]) -> WordErrors:
    """The sum over several texts: long texts weigh more, as they should."""
    return sum(parts, WordErrors())
