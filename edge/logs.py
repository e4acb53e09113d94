"""Structured logs of every process: one line per entry on standard error, text or JSON.

Comes in: events with fields, from structlog or from any library's standard logger. Goes out: lines
without keys, tokens, query strings or (above debug) transcripts. Any room may call ``get_logger``;
only ``edge.cli`` and ``edge.server`` call ``configure``.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Literal

import structlog
from structlog.types import EventDict, Processor

Logger = structlog.stdlib.BoundLogger

HIDDEN = "***"
SECRET_FIELD = re.compile(r"(^|_)(api_?key|key|token|secret|password|authorization|cookie)$", re.I)
SECRET_TEXT = re.compile(
    r"(?P<query>(?<=[\w/])\?[^\s\"'<>]+)"
    r"|(?P<scheme>\b(?:Bearer|Token|Basic)\s+)[^\s\"',]+"
    r"|\bsk-[\w-]{8,}|\besk_\w[\w-]{7,}|\broom\.[0-9a-f]{16,}|\beyJ[\w-]{8,}(?:\.[\w-]*)+",
    re.I,
)
SPOKEN_FIELDS = ("text", "transcript", "transcripts")
LIBRARY_LOGGERS = ("sanic", "websockets", "asyncio", "aiobotocore", "botocore", "opentelemetry")


def configure(level: Literal["debug", "info", "warning", "error"], style: str) -> None:
    """Write entries of ``level`` and above to standard error, as ``text`` or ``json``.

    Libraries are heard from warning upwards. Calling it again replaces what was set.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_transcripts,
        hide_secrets,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def get_logger(name: str, **fields: Any) -> Logger:
    """A logger whose entries carry ``fields`` (session, track, recognizer, ...)."""
    logger: Logger = structlog.stdlib.get_logger(name, **fields)
    return logger


def hide_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """Blank out secret fields, and query strings, bearer tokens and keys inside any text."""
    for field, value in event.items():
        if SECRET_FIELD.search(field):
            event[field] = HIDDEN
        elif isinstance(value, str):
            event[field] = hide_in_text(value)
        elif isinstance(value, BaseException):
            event[field] = hide_in_text(f"{type(value).__name__}: {value}")
    return event


def hide_in_text(text: str) -> str:
    """``text`` without query strings, bearer tokens and API keys."""
    return SECRET_TEXT.sub(_blank, text)


def _blank(found: re.Match[str]) -> str:
    if found["query"]:
        return "?" + HIDDEN
    return (found["scheme"] or "") + HIDDEN


def hide_transcripts(logger: Any, method: str, event: EventDict) -> EventDict:
    """Drop spoken text from every entry above debug."""
    if event.get("level") != "debug":
        for field in SPOKEN_FIELDS:
            if field in event:
                event[field] = HIDDEN
    return event


class Repeats:
    """Repeated errors of one connection: the first of each kind is logged, the rest are counted.

    A kind is an event text. At most ``kinds`` of them are told apart; further ones share a count,
    so that a hostile peer costs a bounded amount of memory and of log.
    """

    OTHER = "other errors"

    def __init__(self, log: Logger, kinds: int = 32) -> None:
        self._log = log
        self._kinds = kinds
        self._seen: dict[str, int] = {}

    def note(self, event: str, level: str = "warning", **fields: Any) -> None:
        """Log ``event`` if it is the first of its kind, else only count it."""
        if event not in self._seen and len(self._seen) >= self._kinds:
            event, fields = self.OTHER, {}
        count = self._seen.get(event, 0) + 1
        self._seen[event] = count
        if count == 1:
            getattr(self._log, level)(event, **fields)

    def count(self, event: str) -> int:
        """How often ``event`` was noted."""
        return self._seen.get(event, 0)

    def summarize(self) -> None:
        """Log how often each repeated error came, in one entry, and start over."""
        repeated = {event: count for event, count in self._seen.items() if count > 1}
        if repeated:
            self._log.warning("repeated errors", counts=repeated)
        self._seen.clear()
