"""``http``: POST of one message as JSON, answered with an ``RPCResponse``."""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import aiohttp
import msgspec

from dispatch.addresses import check_url
from dispatch.errors import Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope, decode_answer
from dispatch.signature import HEADER, sign

MAX_ANSWER_BYTES = 65536
MAX_RETRY_AFTER_S = 3600.0
NOT_NOW = frozenset({408, 425, 429, 502, 503, 504})
AS_THEY_ARE = string.punctuation.replace("%", "")


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3), at most an hour; None if unusable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        until_s = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(until_s - now_s, 0.0), MAX_RETRY_AFTER_S)


class HttpTransport(Transport):
    """One request a message; redirects are not followed, a body would be sent elsewhere.

    ``ValueError`` for a URL that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        secret: bytes = b"",
        deadline_s: float = 10.0,
    ) -> None:
        self._url = check_url(url, "http", "https")
        self._headers = dict(headers or {})
        self._secret = secret
        self._deadline_s = deadline_s
        self._client: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._client = aiohttp.ClientSession(
            headers={"User-Agent": "edgescribe", "Accept-Encoding": "identity", **self._headers},
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is not asked for is not unpacked: a small answer may unpack to a huge one.
            auto_decompress=False,
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        await self._post(envelopes[0])
        return 1

    async def _post(self, envelope: Envelope) -> None:
        assert self._client is not None, "open() comes first"
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._client.post(
                    self._url,
                    data=envelope.body,
                    headers=self._envelope(envelope),
                    allow_redirects=False,
                ) as response,
            ):
                self._check(response)
                self._judge(await self._body(response))
        except TimeoutError as error:
            raise Unreachable(f"no answer within {self._deadline_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"the request failed: {type(error).__name__}") from error

    def _envelope(self, envelope: Envelope) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": quote(envelope.message_id, safe=AS_THEY_ARE),
            "X-Attempt": str(envelope.attempt),
            "X-Epoch": quote(envelope.epoch, safe=AS_THEY_ARE),
            "X-Enqueued-At": str(envelope.enqueued_ms),
        }
        if self._secret:
            headers[HEADER] = sign(self._secret, envelope.body, int(time.time()))
        return headers

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in NOT_NOW:
            asked_s = retry_after_s(response.headers.get("Retry-After"), time.time())
            raise Unreachable(f"status {status}", asked_s)
        if status < 200 or 300 <= status < 400:
            raise Unreachable(f"status {status}, and redirects are not followed")
        if status >= 300:
            raise Refused(f"status {status}", final=status < 500)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """All of it, unless it is too long: then its connection is closed."""
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise Refused(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        return bytes(body)

    def _judge(self, body: bytes) -> None:
        try:
            answer = decode_answer(body)
        except msgspec.DecodeError as error:
            raise Refused("the answer is not an RPCResponse") from error
        if not answer.success:
            raise Refused("the dispatcher answered without success")
