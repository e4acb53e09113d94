"""``GET /openapi.json``: the table of endpoints as an OpenAPI 3.1 document.

Everything comes from what the layer itself goes by, so that the two cannot differ: paths, query
structs, bodies, answers. Source: OpenAPI Specification 3.1.1, whose schemas are JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from types import NoneType
from typing import Any

import msgspec

from edge.api.http import DEADLINE_S, NAME_PATTERN, Call, Endpoint, ErrorBody, NoQuery, parameters
from edge.session.names import MAX_NAME_BYTES
from edge.version import VERSION

JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_SESSION = {
    "name": "session",
    "in": "path",
    "required": True,
    "description": f"the session's name: 1 to {MAX_NAME_BYTES} bytes of UTF-8, percent-encoded",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME_BYTES,
        "pattern": NAME_PATTERN,
    },
}

Object = dict[str, Any]
"""A JSON object of the document."""


class Description:
    """Answers ``/openapi.json``; the document is made when somebody asks first."""

    def __init__(self, endpoints: Sequence[Endpoint[Any, Any]]) -> None:
        self._endpoints = endpoints
        self._document: msgspec.Raw | None = None

    async def get(self, call: Call[NoQuery, None]) -> msgspec.Raw:
        """The document."""
        if self._document is None:
            self._document = msgspec.Raw(msgspec.json.encode(describe(self._endpoints)))
        return self._document


def describe(endpoints: Sequence[Endpoint[Any, Any]]) -> Object:
    """The OpenAPI document of the public ones among some endpoints."""
    public = [endpoint for endpoint in endpoints if endpoint.is_public]
    kinds: dict[Any, None] = {ErrorBody: None}
    for endpoint in public:
        taken = () if endpoint.body is NoneType else (endpoint.body,)
        kinds |= dict.fromkeys((*taken, *_answers(endpoint)))
    references, schemas = msgspec.json.schema_components(
        kinds, schema_hook=_anything, ref_template=_REFERENCE
    )
    known = dict(zip(kinds, references, strict=True))
    paths: dict[str, Object] = {}
    for endpoint in public:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgescribe",
            "version": VERSION,
            "description": "Sessions over HTTP: meetings, what was said, and who said it.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _anything(kind: type) -> Object:
    """The schema of ``object``; an empty one would count as none."""
    return {"description": "any JSON"}


def _answers(endpoint: Endpoint[Any, Any]) -> tuple[type[msgspec.Struct], ...]:
    return endpoint.answer if isinstance(endpoint.answer, tuple) else (endpoint.answer,)


def _operation(endpoint: Endpoint[Any, Any], known: dict[Any, Object]) -> Object:
    success = "200" if endpoint.answer or endpoint.content_types else "204"
    operation: Object = {
        "operationId": _identifier(endpoint),
        "summary": endpoint.summary,
        "parameters": [*_parameters(endpoint)],
        "responses": {
            success: _success(endpoint, known),
            **{str(status): _error(status, known) for status in _errors(endpoint)},
        },
    }
    if endpoint.body is not NoneType:
        operation["requestBody"] = {
            "required": True,
            "content": {endpoint.media_type: {"schema": _body(endpoint, known)}},
        }
    return operation


def _identifier(endpoint: Endpoint[Any, Any]) -> str:
    words = [word.strip("{}.").replace(".", "_") for word in endpoint.path.split("/")[1:]]
    return "_".join([endpoint.method.lower(), *(word for word in words if word != "v1")])


def _parameters(endpoint: Endpoint[Any, Any]) -> Iterator[Object]:
    if "{session}" in endpoint.path:
        yield _SESSION
    query: type[msgspec.Struct] = endpoint.query
    for parameter in parameters(query):
        schema = dict(parameter.schema)
        if parameter.default not in (msgspec.NODEFAULT, None, ""):
            schema["default"] = parameter.default
        schema.pop("description", None)
        yield {
            "name": parameter.name,
            "in": "header" if parameter.is_header else "query",
            "description": parameter.allowed,
            "schema": schema,
        }


def _success(endpoint: Endpoint[Any, Any], known: dict[Any, Object]) -> Object:
    if answers := [known[kind] for kind in _answers(endpoint)]:
        schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
        return {"description": "OK", "content": {JSON: {"schema": schema}}}
    content: Object = {kind.partition(";")[0]: {"schema": {}} for kind in endpoint.content_types}
    return {"description": "OK", "content": content} if content else {"description": "Done"}


def _body(endpoint: Endpoint[Any, Any], known: dict[Any, Object]) -> Object:
    kind = endpoint.body
    if any(field.required for field in msgspec.structs.fields(kind)):
        return known[kind]
    return {"anyOf": [known[kind], {"type": "array", "description": "counts as an empty object"}]}


def _errors(endpoint: Endpoint[Any, Any]) -> list[int]:
    statuses = {503, *endpoint.errors}
    if "{session}" in endpoint.path or endpoint.query is not NoQuery:
        statuses.add(400)
    if endpoint.method == "POST":
        statuses |= {400, 404, 408, 409, 413}
    if endpoint.deadline_s != DEADLINE_S:
        statuses.add(504)
    return sorted(statuses)


def _error(status: int, known: dict[Any, Object]) -> Object:
    content = {JSON: {"schema": known[ErrorBody]}}
    return {"description": HTTPStatus(status).phrase, "content": content}
