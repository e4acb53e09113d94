"""Bodies of requests, read as they arrive: each within its limit and time, all within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sanic import Request
from sanic.exceptions import BadRequest, PayloadTooLarge

from edge.api.http import MAX_BODY_BYTES, ApiError

DEADLINE_S = 30.0
"""For a body to arrive."""
MOST_HELD_BYTES = 32 * 1024 * 1024
"""Of all large bodies that a worker is reading or working on; small ones are always taken."""


class Bodies:
    """One worker's."""

    def __init__(self, most_held_bytes: int = MOST_HELD_BYTES) -> None:
        self._most_held_bytes = most_held_bytes
        self.held_bytes = 0
        """As much as has arrived of those that are in use."""

    @asynccontextmanager
    async def read(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """A request's body, held while the block runs.

        ``ApiError`` 413 above ``limit`` bytes, 408 when it takes too long, 400 when it is cut in
        pieces that make no sense, 503 when there is no room for another large one.
        """
        stream: Any = request.stream
        # Who sends a file that cannot be taken is told so when it has come: clients that are cut
        # off while they send do not read why.
        taken = limit if limit <= MAX_BODY_BYTES else 2 * limit
        usual, stream.request_max_size = stream.request_max_size, taken
        parts: list[bytes] = []
        held = size = 0
        has_room = True
        try:
            try:
                async with asyncio.timeout(DEADLINE_S):
                    async for part in stream:
                        size += len(part)
                        if size > limit or not has_room:
                            parts.clear()
                            self.held_bytes -= held
                            held = 0
                            continue
                        parts.append(part)
                        held += len(part)
                        self.held_bytes += len(part)
                        is_small = held <= MAX_BODY_BYTES
                        has_room = is_small or self.held_bytes <= self._most_held_bytes
                    if size > limit:
                        raise PayloadTooLarge("the body is too large")
                    if not has_room:
                        raise _no_room()
            except ApiError:
                stream.keep_alive = False
                raise
            except PayloadTooLarge as error:
                detail = f"The body is too large: at most {limit} bytes are allowed"
                raise ApiError(413, "too_large", detail) from error
            except BadRequest as error:
                detail = f"The body cannot be read: {error}"
                raise ApiError(400, "bad_body", detail) from error
            except TimeoutError as error:
                stream.keep_alive = False
                detail = f"The body did not arrive within {DEADLINE_S:g} s"
                raise ApiError(408, "too_slow", detail) from error
            finally:
                stream.request_max_size = usual
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self.held_bytes -= held


def _no_room() -> ApiError:
    detail = "The gateway is working on too many large requests; try again later"
    return ApiError(503, "busy", detail, {"Retry-After": "5"})
