"""Log lines: one per entry, nothing secret in them, and no floods."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from edge.logs import Repeats, configure, get_logger, hide_in_text

Read = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def entries() -> Iterator[Read]:
    """Everything logged as JSON at debug since the test began."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(io.StringIO()) as stderr:
        configure("debug", "json")
        yield lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_entries_carry_level_time_and_bound_fields(entries: Read) -> None:
    get_logger("edge.test", session="s1").info("session ended", finals=3)
    (entry,) = entries()
    assert entry["event"] == "session ended"
    assert (entry["session"], entry["finals"], entry["level"]) == ("s1", 3, "info")
    assert entry["timestamp"].endswith("Z")


def test_secrets_are_hidden_wherever_they_stand(entries: Read) -> None:
    log = get_logger("edge.test")
    log.warning("GET /transcribe?sessionId=1&token=abcdef failed", api_key="abcdef")
    log.warning("refused", header="Bearer abcdef", error=ValueError("key sk-abcdefgh1 is wrong"))
    log.warning("refused", authorization="abcdef", openai_api_key="abcdef")
    logging.getLogger("websockets").warning("wss://host/v1?token=%s", "abcdef")
    text = json.dumps(entries())
    assert "abcdef" not in text
    assert "/transcribe?***" in text and "Bearer ***" in text and "wss://host/v1?***" in text


def test_tracebacks_hide_secrets_too(entries: Read) -> None:
    try:
        raise ValueError("wss://host/v1?token=abcdef")
    except ValueError:
        get_logger("edge.test").exception("failed")
    (entry,) = entries()
    assert "ValueError" in entry["exception"] and "abcdef" not in entry["exception"]


def test_transcripts_appear_at_debug_only(entries: Read) -> None:
    log = get_logger("edge.test")
    log.info("final", text="we meet at noon", transcript="we meet at noon")
    log.debug("final", text="we meet at noon")
    above, at_debug = entries()
    assert "noon" not in json.dumps(above)
    assert at_debug["text"] == "we meet at noon"


def test_levels_below_the_setting_cost_no_line() -> None:
    with redirect_stderr(io.StringIO()) as stderr:
        configure("warning", "text")
        get_logger("edge.test").info("unheard")
        get_logger("edge.test").warning("heard", session="s1")
    structlog.reset_defaults()
    assert "unheard" not in stderr.getvalue()
    assert "heard" in stderr.getvalue() and "session=s1" in stderr.getvalue()


def test_a_repeated_error_is_logged_once_and_then_counted(entries: Read) -> None:
    repeats = Repeats(get_logger("edge.test"))
    for _ in range(1000):
        repeats.note("not JSON", size=3)
    repeats.note("no tag")
    assert [entry["event"] for entry in entries()] == ["not JSON", "no tag"]
    assert repeats.count("not JSON") == 1000
    repeats.summarize()
    assert entries()[-1]["counts"] == {"not JSON": 1000}
    repeats.summarize()
    assert len(entries()) == 3


def test_many_kinds_of_errors_cost_a_bounded_number_of_lines(entries: Read) -> None:
    repeats = Repeats(get_logger("edge.test"), kinds=4)
    for number in range(1000):
        repeats.note(f"error {number}")
    assert len(entries()) == 5
    assert repeats.count(Repeats.OTHER) == 996


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), min_size=8))
def test_no_query_survives(secret: str) -> None:
    assert f"={secret}" not in hide_in_text(f"GET /transcribe?token={secret} HTTP/1.1")
