"""Figures that a table of times does not show, printed once at the end of a benchmark run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_lines = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Call it with one line to have that line in the closing list of figures."""
    return request.config.stash.setdefault(_lines, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if lines := config.stash.get(_lines, []):
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
