"""A small typed layer over HTTP: endpoints with parameters and bodies, and one error shape.

An ``Endpoint`` says what it takes and gives as ``msgspec`` types; ``Endpoints`` finds the one for a
request. What cannot be answered is an ``ApiError``, which clients see as
``{"detail": "…", "code": "…"}``.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from edge.errors import EdgescribeError
from edge.session.names import name_problem

MAX_QUERY_FIELDS = 100
DEADLINE_S = 4.0
"""For an answer, or the beginning of one that is sent in parts."""
LONGEST_DEADLINE_S = 600.0
"""For what is known to take long."""
MAX_BODY_BYTES = 64 * 1024
JSON = "application/json"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NAME_PATTERN = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
"""Names without control characters, as a regular expression of JSON Schema (ECMA-262)."""
BLANKS = " \t\n\r\f\v"
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
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body: msgspec.Struct = ErrorBody(detail, code)
        super().__init__(detail)


class NoQuery(msgspec.Struct, frozen=True):
    """The parameters of endpoints that take none."""


Query = TypeVar("Query", bound=msgspec.Struct)
Body = TypeVar("Body")
Decoded = TypeVar("Decoded", bound=msgspec.Struct)


class Call(msgspec.Struct, Generic[Query, Body], frozen=True, kw_only=True):
    """A request that an endpoint is to answer, checked and decoded."""

    method: str
    """As the endpoint has it: a HEAD is a GET here, its body is left out later."""
    session: str = ""
    """The path parameter ``{session}``."""
    query: Query
    body: Body
    """None for endpoints that take none, whatever was sent."""
    text: bytes = b""
    """The body as it was sent."""
    quota: Any = None
    """What audio of the request counts against; None where nobody has to show anything."""
    content_type: str = ""
    """What the body is said to be; of endpoints that take another one than JSON."""


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is sent as it is made. An error in ``parts`` cuts the connection."""

    content_type: str
    parts: AsyncGenerator[bytes, None]
    headers: Mapping[str, str] = NO_HEADERS


class Headed(msgspec.Struct, frozen=True):
    """A JSON body with headers of its own."""

    body: msgspec.Struct | msgspec.Raw
    headers: Mapping[str, str]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A body that is written already."""

    content_type: str
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS


Answer = msgspec.Struct | msgspec.Raw | Headed | Streamed | Document | None
"""A JSON body, a stream, a document, or nothing (204)."""


class Endpoint(msgspec.Struct, Generic[Query, Body], frozen=True, kw_only=True):
    """One method of one path."""

    method: str
    path: str
    """Segments are literal, or ``{session}``: a session's name, percent-encoded. Another name in
    braces stands for any segment, which is not looked at."""
    summary: str
    query: type[Query]
    """Its fields are the parameters; their ``msgspec.Meta`` describes what is allowed, and its
    ``extra`` how they are read: see ``Parameter``."""
    body: type[Body] = NoneType  # type: ignore[assignment]
    """The JSON body of a POST; an array counts as an empty object if that is allowed."""
    media_type: str = JSON
    """Of the body; of another than JSON ``body`` only describes what ``handle`` reads."""
    max_body_bytes: int = MAX_BODY_BYTES
    answer: type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] = ()
    """The body of 200, one of several; none when it is a stream, any JSON object or nothing."""
    content_types: tuple[str, ...] = ()
    """Of 200, where ``answer`` does not say it; without either the answer is 204."""
    errors: tuple[int, ...] = ()
    """Statuses of its own errors, beside those that the layer answers with."""
    deadline_s: float = DEADLINE_S
    reshape: Callable[[ApiError], ApiError] | None = None
    """Puts errors in a form that clients know."""
    is_public: bool = True
    """Whether the description of the interface lists it."""
    handle: Callable[[Call[Query, Body]], Awaitable[Answer]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of requests that this answers."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


class Endpoints:
    """All endpoints there are; ``find`` gives the one for a request and what it is called with."""

    def __init__(self, endpoints: Sequence[Endpoint[Any, Any]]) -> None:
        self.all = tuple(endpoints)
        self._by_path: dict[tuple[str, ...], list[Endpoint[Any, Any]]] = {}
        for endpoint in endpoints:
            self._by_path.setdefault(_segments(endpoint.path), []).append(endpoint)

    def find(
        self, method: str, target: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> tuple[Endpoint[Any, Any], Call[Any, Any]]:
        """The endpoint for ``method target``, and its call without a body; ``ApiError`` 400, 404
        or 405.

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
                values = parse_query(query, endpoint.query, headers)
                call = Call(method=endpoint.method, session=session, query=values, body=None)
                return endpoint, call
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


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a query struct, as requests have it.

    ``Meta(extra={"header": "x-name"})`` takes it from a header. ``extra={"read": function}`` reads
    its text: the function returns the value, None for the default, or raises ``ValueError``;
    ``extra={"schema": …}`` then says in JSON Schema which texts it takes.
    """

    field: str
    name: str
    is_header: bool
    is_text: bool
    """Whether blanks around it belong to it."""
    type: Any
    default: Any
    schema: dict[str, Any]
    read: Callable[[str], Any] | None
    allowed: str
    """What it takes, in words."""

    def value(self, text: str) -> Any:
        """Its value, None for the default; ``ApiError`` 400 names it and what is allowed."""
        if not self.is_text:
            text = text.strip(BLANKS)
        if not text:
            return None
        try:
            if self.read is not None:
                return self.read(text)
            return msgspec.convert(text, self.type, strict=False)
        except ValueError as error:  # of which msgspec's is one
            detail = f"{self.name}={text[:80]!r} cannot be used: {self.allowed}"
            raise ApiError(400, "bad_query", detail) from error


@cache
def parameters(kind: type[msgspec.Struct]) -> tuple[Parameter, ...]:
    """The parameters that a query struct declares."""
    found = []
    for field in msgspec.structs.fields(kind):
        info = msgspec.inspect.type_info(field.type)
        meta = info if isinstance(info, msgspec.inspect.Metadata) else None
        extra = (meta and meta.extra) or {}
        described = (meta and meta.extra_json_schema) or {}
        found.append(
            Parameter(
                field=field.name,
                name=extra.get("header", field.encode_name),
                is_header="header" in extra,
                is_text=isinstance(meta.type if meta else info, msgspec.inspect.StrType),
                type=field.type,
                default=field.default,
                schema=extra.get("schema") or msgspec.json.schema(field.type),
                read=extra.get("read"),
                allowed=str(described.get("description", "another value is needed")),
            )
        )
    return tuple(found)


def parse_query(text: str, kind: type[Query], headers: Mapping[str, str] = NO_HEADERS) -> Query:
    """The fields of a query that ``kind`` knows, the first of each name; empty ones count as
    absent. ``ApiError`` 400 names the field and what is allowed."""
    try:
        pairs = parse_qsl(text, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
    except ValueError as error:
        detail = f"The query cannot be read: it is not UTF-8 or has over {MAX_QUERY_FIELDS} fields"
        raise ApiError(400, "bad_query", detail) from error
    given = dict(reversed(pairs))
    values = {}
    for parameter in parameters(kind):
        source = headers if parameter.is_header else given
        value = parameter.value(source.get(parameter.name, ""))
        if value is not None:
            values[parameter.field] = value
    return kind(**values)


@cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind | list[object])


def parse_body(text: bytes, kind: type[Decoded]) -> Decoded:
    """A JSON object as ``kind``; an array counts as an empty one. ``ApiError`` 400."""
    try:
        body: Decoded | list[object] = _decoder(kind).decode(text.removeprefix(BOM_UTF8))
        return kind() if isinstance(body, list) else body
    except (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError) as error:
        wrong = str(error) if isinstance(error, msgspec.ValidationError) else "it is not JSON"
        if isinstance(error, TypeError):
            wrong = "an object is needed, this is an array"
        raise ApiError(400, "bad_body", f"The body cannot be used: {wrong}") from error


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.rstrip("/").split("/"))


def _fits(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return len(pattern) == len(segments) and all(
        expected.startswith("{") or expected == found
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
