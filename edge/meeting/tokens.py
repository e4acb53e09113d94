"""What counts as a word when utterances are compared, in any script.

Comes in: text as a recognizer wrote it. Goes out: its words in a form in which the same word is
always the same, and where each stands in the text. Characters of scripts that write without spaces
(Han, kana, Hangul, bopomofo) are a word each; in other scripts a word is a run of letters and
digits, with apostrophes inside it. Everything else only separates.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

_IDEOGRAPHIC = (
    (0x1100, 0x11FF),  # Hangul letters
    (0x2E80, 0x2FDF),  # parts of Han characters
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x3029),
    (0x3031, 0x303C),
    (0x3041, 0x31FF),  # kana, bopomofo, Hangul letters
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA960, 0xA97F),  # old Hangul letters
    (0xAC00, 0xD7FB),  # Hangul
    (0xF900, 0xFAFF),
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # more kana, Nushu
    (0x20000, 0x3FFFF),
)
_JOINING = ((0x1160, 0x11FF), (0xD7B0, 0xD7FB), (0xFF9E, 0xFF9F))
"""Letters that are part of the character before them: Hangul vowels and finals, narrow voicing
marks."""
_MOST_JOINED = 32
"""Characters that can be one with their marks."""
_FIRST_JOINED = "\u00ad"
"""No character before this one is ever a mark."""
_APOSTROPHES = frozenset("'\u2019\u02bc\uff07")

_Sort = Literal["word", "single", "apostrophe", "joining", "other"]


class Token(NamedTuple):
    """A word, and the characters ``start`` to ``end`` of the text that it was read from."""

    word: str
    start: int
    end: int
    is_single: bool
    """A character that is a word by itself."""


def tokenize(text: str) -> list[Token]:
    """The words of a text, in order.

    A character that stands for several (½, ㍿) gives words that share its place.
    """
    tokens: list[Token] = []
    size = len(text)
    begin = end = 0
    word = ""
    at = 0
    while at < size:
        after = at + 1
        if after < size and text[after] >= _FIRST_JOINED:
            while after < size and after - at < _MOST_JOINED and _sort(text[after]) == "joining":
                after += 1
        for sort, letters in _parts(text[at:after]):
            if sort == "word":
                if not word:
                    begin = at
                word += letters
                end = after
                continue
            if sort == "apostrophe" and word and _continues(text, after):
                word += "'"
                continue
            if word:
                tokens.append(Token(word, begin, end, False))
                word = ""
            if sort == "single":
                tokens.append(Token(letters, at, after, True))
        at = after
    if word:
        tokens.append(Token(word, begin, end, False))
    return tokens


def words(text: str) -> list[str]:
    """The words of a text, without their places."""
    return [token.word for token in tokenize(text)]


def _continues(text: str, at: int) -> bool:
    return at < len(text) and _parts(text[at])[0][0] == "word"


@lru_cache(maxsize=1 << 15)
def _sort(character: str) -> _Sort:
    code = ord(character)
    if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") or _within(code, _JOINING):
        return "joining"
    if character in _APOSTROPHES:
        return "apostrophe"
    if _within(code, _IDEOGRAPHIC) and unicodedata.category(character)[0] in "LN":
        return "single"
    return "word" if unicodedata.category(character)[0] in "LN" else "other"


@lru_cache(maxsize=1 << 15)
def _parts(cluster: str) -> tuple[tuple[_Sort, str], ...]:
    """What one character with its marks counts as: runs of one sort, each in its common form."""
    if cluster in _APOSTROPHES:
        return (("apostrophe", "'"),)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", cluster).casefold())
    parts: list[tuple[_Sort, str]] = []
    for character in folded:
        category = unicodedata.category(character)
        if category == "Cf":
            continue
        sort = _sort(character)
        if parts and (sort == "joining" or sort == parts[-1][0] == "word"):
            parts[-1] = (parts[-1][0], parts[-1][1] + character)
        elif sort == "joining":
            parts.append(("single" if category[0] == "L" else "other", character))
        else:
            parts.append(("other" if sort == "apostrophe" else sort, character))
    return tuple(parts) or (("other", ""),)


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
