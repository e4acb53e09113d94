"""An S3 service that answers what a test tells it to, and remembers what it was asked.

Only for answers that no real service can be made to give; all else is tested on a real one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

import msgspec
from aiohttp import web

MARK = "x-amz-meta-edgescribe-put"
HANGS = 0
BROKEN = -1


class Answer(msgspec.Struct, frozen=True):
    """One answer: HANGS never comes, BROKEN closes the connection."""

    status: int
    code: str = ""
    body: bytes = b""


class Seen(msgspec.Struct, frozen=True):
    """One request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    size: int


class ScriptedS3:
    """``answers`` go out in order, then 200 without a body for ever."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.seen: list[Seen] = []
        self._marks: dict[str, str] = {}
        self._uploads = 0
        self.aborted = asyncio.Event()
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        query = request.query_string
        self.seen.append(
            Seen(request.method, request.path, query, dict(request.headers), len(body))
        )
        if request.method == "POST" and query == "uploads":
            self._uploads += 1
            upload = f"<UploadId>u{self._uploads}</UploadId>"
            return _xml(f"<InitiateMultipartUploadResult>{upload}", 200)
        if request.method == "DELETE" and f"uploadId=u{self._uploads}" in query:
            self.aborted.set()
            return web.Response(status=204)
        if request.method == "PUT":
            self._marks[request.path] = request.headers.get(MARK, "")
        answer = self.answers.popleft() if self.answers else Answer(200)
        if answer.status == HANGS:
            await asyncio.Event().wait()
        if answer.status == BROKEN:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if answer.code:
            # Some services repeat what they got.
            message = escape(str(request.headers))
            text = f"<Error><Code>{answer.code}</Code><Message>{message}</Message></Error>"
            return web.Response(status=answer.status, text=text, content_type="application/xml")
        headers = {"ETag": '"e"'}
        if request.method == "HEAD" and request.path in self._marks:
            headers[MARK] = self._marks[request.path]
        return web.Response(status=answer.status, body=answer.body, headers=headers)


def _xml(text: str, status: int) -> web.Response:
    name = text[1 : text.index(">")]
    return web.Response(status=status, text=f"{text}</{name}>", content_type="application/xml")
