"""What a person watches: transcripts as they arrive, interims in place, and one line of progress.

On a terminal the open interims and the progress are redrawn at the bottom in colour; piped, each is
a plain line and progress comes every ten seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

_COLOURS = ("36", "33", "35", "32", "34", "31")
_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_PLAIN_PROGRESS_S = 10.0


class Screen:
    """Prints to ``out``; not for several threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._colours: dict[str, str] = {}
        self._interims: dict[str, str] = {}
        self._progress = ""
        self._drawn = 0
        self._next_plain_s = _PLAIN_PROGRESS_S

    def line(self, text: str = "") -> None:
        """A line that stays."""
        self._draw([text])

    def heading(self, text: str) -> None:
        """A line that stays, in bold on a terminal."""
        self.line(f"{_BOLD}{text}{_RESET}" if self._live else text)

    def progress(self, text: str) -> None:
        """What is going on now; replaces the line before it on a terminal, else ignored."""
        if self._live and text != self._progress:
            self._progress = text
            self._draw([])

    def played(self, at_s: float, of_s: float) -> None:
        """Progress of the playing; also for those who pipe, at times."""
        self.progress(f"playing {at_s:5.1f} of {of_s:.1f} s")
        if not self._live and at_s >= self._next_plain_s:
            self._next_plain_s += _PLAIN_PROGRESS_S
            self.line(f"... played {at_s:.0f} of {of_s:.0f} s")

    def interim(self, at_s: float, speaker: str, text: str) -> None:
        """The text so far of what a speaker is saying."""
        line = f"{at_s:6.2f} s  {speaker}  ... {text}"
        if self._live:
            self._interims[speaker] = line
            self._draw([])
        else:
            self.line(line)

    def final(self, at_s: float, speaker: str, text: str, note: str = "") -> None:
        """What a speaker has said; ends the speaker's interim."""
        self._interims.pop(speaker, None)
        tail = f"  ({note})" if note else ""
        if self._live:
            said = f"\x1b[{self._colour(speaker)}m{speaker}{_RESET}"
            self.line(f"{at_s:6.2f} s  {said}  {_BOLD}{text}{_RESET}{_DIM}{tail}{_RESET}")
        else:
            self.line(f"{at_s:6.2f} s  {speaker}  {text}{tail}")

    def settle(self) -> None:
        """Take the interims and the progress away; what is printed stays."""
        self._interims.clear()
        self._progress = ""
        self._draw([])

    def _colour(self, speaker: str) -> str:
        return self._colours.setdefault(speaker, _COLOURS[len(self._colours) % len(_COLOURS)])

    def _draw(self, lines: Sequence[str]) -> None:
        """Print lines that stay above the part that is redrawn."""
        if not self._live:
            for line in lines:
                self._out.write(line + "\n")
            self._out.flush()
            return
        width = max(20, shutil.get_terminal_size().columns)
        foot = [_fit(line, width) for line in self._interims.values()]
        if self._progress:
            foot.append(_fit(self._progress, width))
        erase = f"\x1b[{self._drawn}F\x1b[0J" if self._drawn else ""
        faint = [f"{_DIM}{line}{_RESET}" for line in foot]
        self._out.write(erase + "".join(f"{line}\n" for line in [*lines, *faint]))
        self._out.flush()
        self._drawn = len(foot)


def _fit(line: str, width: int) -> str:
    """The end of a text is what is new: shorten it in the middle, after speaker and time."""
    if len(line) < width:
        return line
    head = min(len(line), width // 3)
    return line[:head] + "…" + line[head - width + 2 :]
