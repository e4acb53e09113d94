"""One call of an HTTP service: a body goes there, an answer comes back, within a deadline.

Comes in: JSON. Goes out: the answer as it came, or why there is none. ``edge.meeting.inference``
loads this when a service is configured.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec

from edge.version import VERSION

MOST_ANSWER_BYTES = 4 * 1024 * 1024
_EPOCH_S = 1_000_000_000
"""A rate limit's reset above this is a Unix time, otherwise seconds from now."""


class Unreachable(Exception):
    """There is no answer; says why, in words that a client may see."""


class Reply(msgspec.Struct, frozen=True):
    """An answer; ``retry_after_s`` is the service's wish, None if it has none."""

    status: int
    body: bytes
    retry_after_s: float | None


class Caller:
    """Connections to one address; use it on one event loop and close it there."""

    def __init__(self, url: str, key: str | None, at_once: int) -> None:
        headers = {"content-type": "application/json", "user-agent": f"edgescribe/{VERSION}"}
        if key:
            headers["x-api-key"] = key
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=at_once),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
        )

    async def call(self, body: bytes, deadline_s: float) -> Reply:
        """Post a body; raises ``Unreachable``. Redirections are not followed."""
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        try:
            async with self._session.post(
                self._url, data=io.BytesIO(body), timeout=timeout, allow_redirects=False
            ) as response:
                answer = bytearray()
                async for piece in response.content.iter_any():
                    answer += piece
                    if len(answer) > MOST_ANSWER_BYTES:
                        raise Unreachable("its answer is too long")
                return Reply(response.status, bytes(answer), _wish(response.headers))
        except TimeoutError:
            raise Unreachable("it did not answer in time") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"it cannot be reached ({type(error).__name__})") from error

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()


def _wish(headers: Mapping[str, str]) -> float | None:
    """How long a service asks to be left alone.

    Source: RFC 9110 section 10.2.3; the ``X-RateLimit`` fields are nobody's standard.
    """
    if text := headers.get("Retry-After", "").strip():
        if text.isdecimal():
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None
    try:
        reset = float(headers.get("X-RateLimit-Reset", ""))
    except ValueError:
        return None
    wait_s = reset - time.time() if reset > _EPOCH_S else reset
    return wait_s if 0 <= wait_s < float("inf") else None
