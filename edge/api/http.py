"""A small typed layer over HTTP: endpoints with path parameters and queries, and one error shape.

An ``Endpoint`` says what it takes and gives as ``msgspec`` types; ``Endpoints`` finds the one for a
request. What cannot be answered is an ``ApiError``, which clients see as
``{"detail": "…", "code": "…"}``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from edge.errors import EdgescribeError
from edge.session.names import name_problem

MAX_QUERY_FIELDS = 100
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is an error."""

    detail: str
    """For a person: what is wrong and what is allowed."""
    code: str
    """For a program: a short stable word."""


class ApiError(EdgescribeError):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = ErrorBody(detail, code)
        super().__init__(detail)


class NoQuery(msgspec.Struct, frozen=True):
    """The query of endpoints that take none."""


Query = TypeVar("Query", bound=msgspec.Struct)


class Call(msgspec.Struct, Generic[Query], frozen=True, kw_only=True):
    """A request that an endpoint is to answer, checked and decoded."""

    method: str
    """As the endpoint has it: a HEAD is a GET here, its body is left out later."""
    session: str = ""
    """The path parameter ``{session}``."""
    query: Query


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is sent as it is made. An error in ``parts`` cuts the connection."""

    content_type: str
    parts: AsyncGenerator[bytes, None]
    headers: Mapping[str, str] = MappingProxyType({})


Answer = msgspec.Struct | Streamed | None
"""A JSON body, a stream, or nothing (204)."""


class Endpoint(msgspec.Struct, Generic[Query], frozen=True, kw_only=True):
    """One method of one path."""

    method: str
    path: str
    """Segments are literal, or ``{session}``: a session's name, percent-encoded."""
    summary: str
    query: type[Query]
    """Its fields are the query's; their ``msgspec.Meta`` describes what is allowed."""
    answer: type[msgspec.Struct] | None = None
    """The body of 200; None when it is a stream or nothing."""
    handle: Callable[[Call[Query]], Awaitable[Answer]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of requests that this answers."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


class Endpoints:
    """All endpoints there are; ``find`` gives the one for a request and what it is called with."""

    def __init__(self, endpoints: Sequence[Endpoint[Any]]) -> None:
        self.all = tuple(endpoints)
        self._by_path: dict[tuple[str, ...], list[Endpoint[Any]]] = {}
        for endpoint in endpoints:
            self._by_path.setdefault(_segments(endpoint.path), []).append(endpoint)

    def find(self, method: str, target: str) -> tuple[Endpoint[Any], Call[Any]]:
        """The endpoint for ``method target``; ``ApiError`` 400, 404 or 405.

        ``target`` is the path and query as sent, one character a byte.
        """
        path, _, query = target.partition("?")
        segments = _segments(path)
        pattern = next((each for each in self._by_path if _fits(each, segments)), None)
        if pattern is None:
            raise ApiError(404, "not_found", "There is nothing at this path")
        endpoints = self._by_path[pattern]
        named = dict(zip(pattern, segments, strict=True))
        for endpoint in endpoints:
            if method in endpoint.methods:
                session = _session(named["{session}"]) if "{session}" in named else ""
                values = parse_query(query, endpoint.query)
                return endpoint, Call(method=endpoint.method, session=session, query=values)
        allowed = ", ".join(sorted(each for known in endpoints for each in known.methods))
        detail = f"{method} is not possible here; allowed: {allowed}"
        raise ApiError(405, "method_not_allowed", detail, {"Allow": allowed})

    def has(self, target: str) -> bool:
        """Whether a path belongs here: all below ``/v1``, and those of the endpoints."""
        path = target.partition("?")[0]
        if path == "/v1" or path.startswith("/v1/"):
            return True
        segments = _segments(path)
        return any(_fits(pattern, segments) for pattern in self._by_path)


def parse_query(text: str, kind: type[Query]) -> Query:
    """The fields of a query that ``kind`` knows, the first of each name; empty ones count as
    absent. ``ApiError`` 400 names the field and what is allowed."""
    try:
        pairs = parse_qsl(text, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
    except ValueError as error:
        detail = f"The query cannot be read: it is not UTF-8 or has over {MAX_QUERY_FIELDS} fields"
        raise ApiError(400, "bad_query", detail) from error
    given = dict(reversed(pairs))
    values = {}
    for field in msgspec.structs.fields(kind):
        text = given.get(field.encode_name, "")
        if field.type is not str:
            text = text.strip()
        if not text:
            continue
        try:
            values[field.name] = msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError as error:
            allowed = _description(field.type)
            detail = f"{field.encode_name}={text[:80]!r} cannot be used: {allowed}"
            raise ApiError(400, "bad_query", detail) from error
    return kind(**values)


def _description(annotation: Any) -> str:
    kind = msgspec.inspect.type_info(annotation)
    extra = kind.extra_json_schema if isinstance(kind, msgspec.inspect.Metadata) else None
    return str((extra or {}).get("description", "another value is needed"))


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.rstrip("/").split("/"))


def _fits(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return len(pattern) == len(segments) and all(
        expected == "{session}" or expected == found
        for expected, found in zip(pattern, segments, strict=True)
    )


def _session(segment: str) -> str:
    try:
        if _BAD_ESCAPE.search(segment):
            raise ValueError("a percent sign without two hexadecimal digits")
        name = unquote_to_bytes(segment.encode("latin-1")).decode()
    except ValueError as error:
        detail = "The session's name cannot be read: it is not percent-encoded UTF-8"
        raise ApiError(400, "bad_session", detail) from error
    if problem := name_problem(name):
        raise ApiError(400, "bad_session", f"A session cannot have this name: {problem}")
    return name
