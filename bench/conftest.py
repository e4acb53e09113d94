"""Figures that a table of times does not show, printed once at the end of a benchmark run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_lines = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known when this folder is named on the command line."""
    parser.addoption(
        "--figures", action="store_true", help="take figures in full, and hold them to their limits"
    )


@pytest.fixture
def in_full(request: pytest.FixtureRequest) -> bool:
    """Whether figures are what the run is for; otherwise it only has to run, and soon."""
    return bool(request.config.getoption("--figures", default=False))


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
