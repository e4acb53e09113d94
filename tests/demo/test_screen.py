"""What a person sees: plain lines when piped, interims in place on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from edge.demo.screen import Screen


class Terminal(io.StringIO):
    """A terminal of 40 columns that understands what the screen sends."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        lines: list[str] = []
        for piece in re.split(r"(\x1b\[\d+F\x1b\[0J|\n)", self.getvalue()):
            if match := re.fullmatch(r"\x1b\[(\d+)F\x1b\[0J", piece):
                del lines[-int(match[1]) :]
            elif piece not in ("", "\n"):
                lines.append(re.sub(r"\x1b\[\d+m", "", piece))
        return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def test_piped_everything_is_a_plain_line() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.progress("starting")
    screen.interim(1.5, "ann", "hel")
    screen.final(2.25, "ann", "hello", "+400 ms")
    screen.settle()
    assert out.getvalue() == "  1.50 s  ann  ... hel\n  2.25 s  ann  hello  (+400 ms)\n"


def test_piped_progress_comes_every_ten_seconds() -> None:
    out = io.StringIO()
    screen = Screen(out)
    for tenth in range(0, 251):
        screen.played(tenth / 10, 30)
    assert out.getvalue() == "... played 10 of 30 s\n... played 20 of 30 s\n"


def test_on_a_terminal_an_interim_is_replaced_by_the_next_and_by_the_final(
    terminal: Terminal,
) -> None:
    screen = Screen(terminal)
    screen.interim(1.0, "ann", "hel")
    screen.interim(1.2, "bob", "good")
    screen.interim(1.5, "ann", "hello")
    assert terminal.shown() == ["  1.50 s  ann  ... hello", "  1.20 s  bob  ... good"]
    screen.final(2.0, "ann", "hello there")
    assert terminal.shown() == ["  2.00 s  ann  hello there", "  1.20 s  bob  ... good"]
    screen.settle()
    assert terminal.shown() == ["  2.00 s  ann  hello there"]


def test_on_a_terminal_progress_is_one_line_at_the_bottom(terminal: Terminal) -> None:
    screen = Screen(terminal)
    screen.played(1.0, 30)
    screen.line("stays")
    screen.played(1.1, 30)
    assert terminal.shown() == ["stays", "playing   1.1 of 30.0 s"]


def test_long_interims_stay_on_one_line_and_show_their_end(terminal: Terminal) -> None:
    screen = Screen(terminal)
    screen.interim(1.0, "ann", "word " * 50 + "last")
    (line,) = terminal.shown()
    assert len(line) < 60 and line.startswith("  1.00 s  ann") and line.endswith("word last")
