"""The answers that are the router's own, exact to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

JSON: Final = "application/json"
TEXT: Final = "text/plain;charset=UTF-8"
UNKNOWN_ERROR: Final = "Unknown error"

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """A whole response of the router's own."""

    status: int
    body: bytes
    content_type: str = JSON
    retry_after_s: int | None = None


class _Plain(msgspec.Struct, frozen=True):
    error: str
    message: str


class _NotFound(msgspec.Struct, frozen=True):
    error: str
    message: str
    available_services: Sequence[str]


class _NotDeployed(msgspec.Struct, frozen=True):
    error: str
    message: str
    hint: str


class _Hidden(msgspec.Struct, frozen=True):
    error: str
    message: str
    request_id: str


BAD_REQUEST: Final = Answer(400, _encode(_Plain("Bad request", "Invalid Host header")))
CONNECT_REFUSED: Final = Answer(
    405, _encode(_Plain("Method not allowed", "CONNECT is not supported"))
)
CONFIGURATION_ERROR: Final = Answer(500, b"Configuration error", TEXT)


def not_found(host: str, path: str, listed: Sequence[str]) -> Answer:
    """No service answers for this host and path."""
    message = f"No worker found for {host}{path}"
    return Answer(404, _encode(_NotFound("Service not found", message, listed)))


def not_deployed(service: str, environment: str) -> Answer:
    """The service is known, but nothing is registered under its name."""
    message = f'Worker "{service}" not found in {environment} namespace'
    hint = "Service may not be deployed yet. Deploy via Deploy API."
    return Answer(404, _encode(_NotDeployed("Service not deployed", message, hint)))


def failed(text: str, request_id: str, *, expose: bool) -> Answer:
    """The service raised before its response began; the text of its error only if ``expose``."""
    if not expose:
        return Answer(500, _encode(_Hidden("Internal server error", UNKNOWN_ERROR, request_id)))
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return Answer(500, _encode(_Plain("Internal server error", readable or UNKNOWN_ERROR)))


def over_limit(service: str, what: str) -> Answer:
    """The service is over one of its limits: at once too many requests, or too long."""
    message = f'Worker "{service}" is over its limit of {what}'
    return Answer(429, _encode(_Plain("Too many requests", message)), retry_after_s=1)


def too_large(service: str, max_body: int) -> Answer:
    """The request's body is larger than the service takes."""
    message = f'Worker "{service}" takes bodies of at most {max_body} bytes'
    return Answer(413, _encode(_Plain("Payload too large", message)))
