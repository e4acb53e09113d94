"""How hard the hostile tests try: lightly in the suite, fully with ``make hostile``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.support import FULL, LIGHT, Crowd, Effort
from tests.support.server import Server, running

ENVIRONMENT = {
    "ENABLE_DUMMY_PROVIDER": "true",
    "PROVIDERS_PRIORITY": "dummy",
    "EDGESCRIBE_CLIENT_SEND_TIMEOUT_S": "1.5",
    "EDGESCRIBE_CLIENT_CLOSE_TIMEOUT_S": "1",
    "EDGESCRIBE_RESUME_GRACE_S": "2",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known when this folder is named on the command line."""
    parser.addoption("--full", action="store_true", help="the numbers the promises are made for")


@pytest.fixture(scope="session")
def effort(request: pytest.FixtureRequest) -> Effort:
    """How much of each attack, and what a neighbour may feel of it."""
    return FULL if request.config.getoption("--full", default=False) else LIGHT


@pytest.fixture
def server() -> Iterator[Server]:
    """One worker, so that attacker and neighbour meet; what it logged must hold no traceback."""
    with running("--workers", "1", environment=ENVIRONMENT) as started:
        yield started
        assert "Traceback" not in started.log, started.log


@pytest.fixture
def crowd(server: Server) -> Iterator[Crowd]:
    """The attackers' sockets."""
    attackers = Crowd(server.port)
    yield attackers
    attackers.leave()
