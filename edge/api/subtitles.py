"""What was said, as subtitles and as text: pure functions of cues, nothing is read here.

Cues come in the order in which they became final, and speakers overlap; files want them by their
start. WebVTT: W3C WebVTT section 4 (escapes, voice spans, starts that never go back). SubRip has no
standard and no escapes: characters that players take as markup are replaced by look-alikes.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Iterator

import msgspec

LINE_WIDTH = 42
"""Columns of a line of subtitles; a Han, kana or Hangul character takes two."""
CUE_LINES = 2
"""What is longer becomes several cues one after the other."""
SHORTEST_MS = 200
"""A cue that is shown for less cannot be seen, and players refuse one of no length."""
MOST_WAITING = 1000
"""Cues held back to be put in order; one that comes later than that many is shown late."""
UNNAMED = "speaker"
"""The name of a speaker who has not said one; it is left out."""

_WIDE = (
    "\u1100-\u115f\u2e80-\u303e\u3041-\u4dbf\u4e00-\ua4cf\uac00-\ud7a3\uf900-\ufaff"
    "\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd"
)
_CLOSING = "、。，．・：；？！）」』】〉》”’…ー"  # noqa: RUF001
_token = re.compile(rf"\s+|[{_WIDE}][{_CLOSING}]*|[^\s{_WIDE}]+")
_unseen = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_vtt_escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_srt_lookalikes = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})  # noqa: RUF001


class Cue(msgspec.Struct):
    """One final: times in ms on the session's clock, text in one line."""

    start_ms: int
    end_ms: int
    speaker: str
    text: str


class Piece(msgspec.Struct, frozen=True):
    """As much of a cue as is shown at once."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    is_first: bool


def new_cue(start_ms: float, end_ms: float, speaker: str, text: str) -> Cue | None:
    """A cue with usable times; None when nothing was said."""
    words = one_line(text)
    if not words:
        return None
    start = max(0, round(start_ms))
    end = max(round(end_ms), start + SHORTEST_MS)
    name = one_line(speaker)
    return Cue(start, end, "" if name == UNNAMED else name, words)


def one_line(text: str) -> str:
    """Text without line breaks and control characters."""
    return " ".join(_unseen.sub("", text).split())


class InOrder:
    """Puts cues in the order of their starts, holding back a bounded number of them.

    The cues of one speaker never overlap: recognizers estimate times.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._waiting: list[tuple[int, int, Cue]] = []
        self._added = 0
        self._latest: dict[str, Cue] = {}
        self._given_ms = 0

    def add(self, cue: Cue) -> Iterator[Cue]:
        """Take the next final; give what is due."""
        before = self._latest.get(cue.speaker)
        if before is not None and before.start_ms <= cue.start_ms < before.end_ms:
            before.end_ms = max(cue.start_ms, before.start_ms + 1)
        if before is None and len(self._latest) >= self._most_waiting:
            self._latest.clear()
        self._latest[cue.speaker] = cue
        self._added += 1
        heapq.heappush(self._waiting, (cue.start_ms, self._added, cue))
        while len(self._waiting) > self._most_waiting:
            yield self._next()

    def rest(self) -> Iterator[Cue]:
        """Give what was held back."""
        while self._waiting:
            yield self._next()

    def _next(self) -> Cue:
        cue = heapq.heappop(self._waiting)[2]
        late_ms = self._given_ms - cue.start_ms
        if late_ms > 0:
            cue.start_ms += late_ms
            cue.end_ms = max(cue.end_ms, cue.start_ms + SHORTEST_MS)
        self._given_ms = cue.start_ms
        return cue


class Flattened:
    """Pieces of ordered cues, in order again: a long cue's later pieces wait for others' cues."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Piece, Cue]] = []
        self._added = 0

    def add(self, cue: Cue, prefix: str = "") -> Iterator[tuple[Piece, Cue]]:
        """Take the next cue; give the pieces that begin before it ends its wait."""
        while self._waiting and self._waiting[0][0] <= cue.start_ms:
            yield self._next()
        for piece in pieces(cue, prefix):
            self._added += 1
            heapq.heappush(self._waiting, (piece.start_ms, self._added, piece, cue))

    def rest(self) -> Iterator[tuple[Piece, Cue]]:
        """Give what is left."""
        while self._waiting:
            yield self._next()

    def _next(self) -> tuple[Piece, Cue]:
        _, _, piece, cue = heapq.heappop(self._waiting)
        return piece, cue


def pieces(cue: Cue, prefix: str = "") -> list[Piece]:
    """A cue cut into pieces of ``CUE_LINES``; each has its share of the time by its length."""
    lines = wrap(prefix + cue.text)
    groups = [lines[at : at + CUE_LINES] for at in range(0, len(lines), CUE_LINES)]
    sizes = [sum(map(width, group)) for group in groups]
    total, spoken_ms = sum(sizes), cue.end_ms - cue.start_ms
    found: list[Piece] = []
    done = 0
    for group, size in zip(groups, sizes, strict=True):
        start_ms = cue.start_ms + spoken_ms * done // total
        done += size
        end_ms = cue.start_ms + spoken_ms * done // total
        found.append(Piece(start_ms, max(end_ms, start_ms + 1), tuple(group), not found))
    return found


def wrap(text: str, columns: int = LINE_WIDTH) -> list[str]:
    """Lines of at most ``columns``, broken between words and between wide characters.

    A longer word is cut; closing punctuation stays with the wide character before it.
    """
    lines: list[str] = []
    line, space, used = "", "", 0
    for match in _token.finditer(text):
        token = match[0]
        if token.isspace():
            space = " "
            continue
        needed = width(token)
        if line and used + len(space) + needed > columns:
            lines.append(line)
            line, used = "", 0
        if line:
            line, used = f"{line}{space}{token}", used + len(space) + needed
        else:
            line, used = token, needed
        space = ""
        while used > columns:
            head = _cut(line, columns)
            lines.append(line[:head])
            line = line[head:]
            used = width(line)
    return [*lines, line] if line else lines


def width(text: str) -> int:
    """Columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _cut(text: str, columns: int) -> int:
    """How many characters fit, without leaving a combining mark alone."""
    at = min(len(text) - 1, columns)
    while at > 1 and width(text[:at]) > columns:
        at -= 1
    while at > 1 and unicodedata.category(text[at]).startswith("M"):
        at -= 1
    return at


def srt_piece(number: int, piece: Piece) -> str:
    """One numbered cue of a SubRip file, with the empty line that ends it."""
    times = f"{clock(piece.start_ms, ',')} --> {clock(piece.end_ms, ',')}"
    text = "\n".join(piece.lines).translate(_srt_lookalikes)
    return f"{number}\n{times}\n{text}\n\n"


def vtt_piece(piece: Piece, cue: Cue) -> str:
    """One cue of a WebVTT file, with the empty line that ends it."""
    times = f"{clock(piece.start_ms, '.')} --> {clock(piece.end_ms, '.')}"
    voice = f"<v {cue.speaker.translate(_vtt_escapes)}>" if cue.speaker else ""
    text = "\n".join(piece.lines).translate(_vtt_escapes)
    return f"{times}\n{voice}{text}\n\n"


def clock(at_ms: int, point: str) -> str:
    """``hh:mm:ss`` and milliseconds; hours grow beyond two digits."""
    seconds, ms = divmod(at_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
