"""Answers the requests of the typed endpoints: JSON, streams and errors on Sanic's responses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import NoneType
from typing import Any

import msgspec
from sanic import HTTPResponse, Request
from sanic.http import Stage
from sanic.response import raw

from edge.api.bodies import MOST_HELD_BYTES, Bodies
from edge.api.http import (
    DEADLINE_S,
    NO_HEADERS,
    Answer,
    ApiError,
    Call,
    Document,
    Endpoint,
    Endpoints,
    Headed,
    Streamed,
    parse_body,
)
from edge.api.http import (
    JSON as JSON_BODY,
)
from edge.errors import Conflict, HistoryLost, ObjectError, SessionDeleted, StoreError
from edge.logs import Repeats, get_logger

JSON = "application/json; charset=utf-8"
AT_ONCE = 4
"""Bodies of the largest size that a worker can hold."""
MOST_STREAMS = 8
"""Answers that a worker sends in parts at once; each holds what it has made and not sent."""
DRAIN_WITHIN_S = 1.0
SLOWEST_STREAM_S = 600.0
"""Longest that one of them may take, whatever its reader does."""

_json = msgspec.json.Encoder()
_log = get_logger("edge.api.answers")


class Answers:
    """One worker's side of the typed endpoints."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._streams = 0
        largest = max(endpoint.max_body_bytes for endpoint in endpoints.all)
        self._bodies = Bodies(max(MOST_HELD_BYTES, AT_ONCE * largest))
        self._long: set[asyncio.Timeout] = set()
        """Deadlines of requests under way that may take long."""
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_draining = False
        self._faults = Repeats(_log)

    async def drain(self) -> None:
        """Give up what takes long, so that its clients are told to ask again; takes a second."""
        self._is_draining = True
        for deadline in self._long:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await self._is_idle.wait()

    def serves(self, target: str) -> bool:
        """Whether ``target``, a path and query as sent, is answered here."""
        return self._endpoints.has(target)

    async def answer(self, request: Request, target: str) -> HTTPResponse | None:
        """The response to a request; None when it has been sent, in parts, by then."""
        endpoint: Endpoint[Any, Any] | None = None
        try:
            endpoint, call = self._endpoints.find(request.method, target, request.headers)
            async with self._bodies.read(request, endpoint.max_body_bytes) as text:
                _notice_hangups(request)
                call = _with_body(endpoint, call, text, request)
                answer = await self._within(endpoint, call)
            if isinstance(answer, Streamed):
                return await self._stream(request, answer)
        except ApiError as error:
            told = error if endpoint is None or not endpoint.reshape else endpoint.reshape(error)
            return _structured(told.body, told.status, told.headers)
        except ObjectError as error:
            return self._objects_failed(error)
        except (StoreError, TimeoutError) as error:
            return self._store_failed(error)
        self._faults.summarize()
        if answer is None:
            return HTTPResponse(status=204)
        if isinstance(answer, Document):
            return raw(answer.body, headers={**answer.headers}, content_type=answer.content_type)
        if isinstance(answer, Headed):
            return _structured(answer.body, 200, answer.headers)
        return _structured(answer, 200)

    async def _within(self, endpoint: Endpoint[Any, Any], call: Call[Any, Any]) -> Answer:
        """What the endpoint answers in time; what takes long is given up when the worker stops."""
        if endpoint.deadline_s <= DEADLINE_S:
            async with asyncio.timeout(endpoint.deadline_s):
                return await endpoint.handle(call)
        if self._is_draining:
            raise _stopping()
        try:
            async with asyncio.timeout(endpoint.deadline_s) as deadline:
                self._long.add(deadline)
                self._is_idle.clear()
                return await endpoint.handle(call)
        except TimeoutError as error:
            if self._is_draining:
                raise _stopping() from error
            detail = f"This took over {endpoint.deadline_s:g} s; what was done is kept, ask again"
            raise ApiError(504, "too_slow", detail) from error
        finally:
            self._long.discard(deadline)
            if not self._long:
                self._is_idle.set()

    def _objects_failed(self, error: ObjectError) -> HTTPResponse:
        self._faults.note("the object store did not answer a request", reason=str(error))
        detail = "The object store does not answer; try again in a moment"
        refusal = ApiError(503, "objects_unavailable", detail, {"Retry-After": "2"})
        return _structured(refusal.body, refusal.status, refusal.headers)

    def _store_failed(self, error: StoreError | TimeoutError) -> HTTPResponse:
        if isinstance(error, SessionDeleted):
            refusal = ApiError(404, "no_session", "The session was deleted")
        elif isinstance(error, HistoryLost | Conflict):
            refusal = ApiError(409, "changed", "The session was changed meanwhile; ask again")
        else:
            self._faults.note("the store did not answer a request", reason=str(error) or "too slow")
            detail = "The session store does not answer; try again in a moment"
            refusal = ApiError(503, "store_unavailable", detail, {"Retry-After": "2"})
        return _structured(refusal.body, refusal.status, refusal.headers)

    async def _stream(self, request: Request, answer: Streamed) -> HTTPResponse | None:
        async with contextlib.aclosing(answer.parts) as parts:
            if request.version == "1.0":
                raise ApiError(505, "http_version", "This answer takes HTTP/1.1: it has no length")
            if self._streams >= MOST_STREAMS:
                detail = f"{MOST_STREAMS} files are being sent; try again later"
                raise ApiError(503, "busy", detail, {"Retry-After": "5"})
            self._streams += 1
            try:
                response: HTTPResponse = await request.respond(
                    content_type=answer.content_type, headers={**answer.headers}
                )
                async with asyncio.timeout(SLOWEST_STREAM_S):
                    if request.method == "HEAD":
                        await _send_head(request, response)
                        return None
                    request.ctx.body_bytes = 0
                    async for part in parts:
                        if part:
                            await response.send(part)
                            request.ctx.body_bytes += len(part)
            except (StoreError, ObjectError, TimeoutError) as error:
                _log.warning("an answer was cut off", reason=str(error) or "too slow")
                transport: Any = request.transport
                transport.abort()
            finally:
                self._streams -= 1
            return None


def _notice_hangups(request: Request) -> None:
    """Read on while a request is answered: Sanic stops within a large body, and then does not see
    that its client has gone, which ends the work for it."""
    transport: Any = request.transport
    if transport is not None and not transport.is_closing():
        transport.resume_reading()


async def _send_head(request: Request, response: HTTPResponse) -> None:
    """The header of an answer whose length is not known; Sanic 25.12 fails when it ends this."""
    await response.send(b"")
    stream: Any = request.stream
    stream.response_func = None
    stream.stage = Stage.IDLE


def _stopping() -> ApiError:
    detail = "The gateway is stopping; what was done is kept, ask again"
    return ApiError(503, "stopping", detail, {"Retry-After": "1"})


def _with_body(
    endpoint: Endpoint[Any, Any], call: Call[Any, Any], text: bytes, request: Request
) -> Call[Any, Any]:
    if endpoint.body is NoneType:
        return call
    if endpoint.media_type != JSON_BODY:
        kind = request.headers.get("content-type", "")
        quota = getattr(request.ctx, "quota", None)
        return msgspec.structs.replace(call, text=text, content_type=kind, quota=quota)
    body = parse_body(text, endpoint.body)
    return msgspec.structs.replace(call, body=body, text=text)


def _structured(
    body: msgspec.Struct | msgspec.Raw, status: int, headers: Mapping[str, str] = NO_HEADERS
) -> HTTPResponse:
    return raw(_json.encode(body), status=status, headers={**headers}, content_type=JSON)
