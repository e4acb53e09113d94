"""What stands before a worker's routes and protocols: credentials, origins, headers for browsers.

Comes in: a request. Goes out: nothing where it may go on, an answer where not. Without
authentication and without origins it lets everybody pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec
from sanic import HTTPResponse, Request
from sanic.response import BaseHTTPResponse, empty, raw

from edge.api.answers import JSON
from edge.api.http import ErrorBody
from edge.auth.credentials import query_without_credentials, without_credentials
from edge.auth.doorkeeper import Counted, FirstFrame
from edge.auth.grants import Denied, Grant
from edge.auth.guard import Admission, Guard
from edge.auth.introductions import Introduction, of_call, of_recorder
from edge.auth.rules import CALLS
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.session.gateway import Acceptance, Gateway
from edge.session.granted import GrantedHost
from edge.session.interface import Rights
from edge.transport.handshake import offered_subprotocols

PLAIN_PROTOCOL = "edgescribe"
"""Confirmed to pages that offer it beside a key to a protocol without a name of its own."""
PREFLIGHT_S = 600
MOST_STRANGERS = 500
"""Connections of a worker that have yet to show a key in their first messages."""
EVERYBODY = "*"
_ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_encode = msgspec.json.Encoder().encode


class Entrance:
    """One worker's."""

    def __init__(self, guard: Guard | None, allowed_origins: tuple[str, ...]) -> None:
        """``guard`` is None where nobody has to show anything."""
        self._guard = guard
        self._origins = frozenset(allowed_origins)
        self._strangers: set[FirstFrame] = set()

    async def plain(self, request: Request) -> HTTPResponse | None:
        """The answer to a request that may not go on; None for one that may."""
        if self._is_preflight(request):
            return self._preflight(request)
        if self._guard is None:
            return None
        try:
            admission = await self._guard.request(
                request.method,
                request.path,
                request.query_string,
                request.headers,
                _client(request, self._guard),
            )
            request.ctx.quota = None if admission is None else admission.meter
        except Denied as denied:
            return _denied(denied)
        return None

    async def upgrade(self, request: Request, gateway: Gateway) -> Acceptance | Refusal:
        """What becomes of a WebSocket handshake."""
        if not self._is_origin_allowed(request):
            return Refusal(403, "Pages of this origin may not connect")
        asked = _asked(request)
        if self._guard is None:
            return gateway.upgrade(asked)
        address = _client(request, self._guard)
        offered = tuple(offered_subprotocols(request.headers))
        try:
            admission = await self._guard.socket(
                asked.path, asked.query, request.headers, offered, address
            )
        except Denied as denied:
            return Refusal(denied.status, denied.detail, denied.retry_after_s)
        if admission is None and len(self._strangers) >= MOST_STRANGERS:
            return Refusal(503, "Too many connections have not shown a key yet", 5)
        host = GrantedHost(gateway)
        clean = msgspec.structs.replace(asked, query=query_without_credentials(asked.query))
        if admission is not None:
            _grant(host, admission)
        answer = gateway.upgrade(clean, host)
        if isinstance(answer, Refusal):
            return answer
        if admission is not None:
            receiver = Counted(answer.receiver, admission)
            return _named(answer, receiver, clean)
        guard = self._guard

        async def judge(shown: Introduction) -> Admission:
            return await guard.first_frame(
                shown.key, asked.path, asked.query, address, shown.session
            )

        introduce = of_call if asked.path == CALLS else of_recorder
        first = FirstFrame(
            answer.receiver, introduce, judge, partial(_grant, host), self._strangers
        )
        return _named(answer, first, clean)

    def finish(self, request: Request, response: BaseHTTPResponse) -> None:
        """Put the headers for browsers on an answer."""
        if response.status == 101:
            return
        for name, value in _ALWAYS.items():
            response.headers.setdefault(name, value)
        if (origin := self._page(request)) is not None:
            response.headers.setdefault("Access-Control-Allow-Origin", origin)
            response.headers.setdefault("Vary", "Origin")

    def _page(self, request: Request) -> str | None:
        """The origin of a page that may read the answer."""
        origin = request.headers.get("origin")
        if not self._origins or origin is None:
            return None
        if EVERYBODY in self._origins:
            return EVERYBODY
        return origin if origin in self._origins else None

    def _is_preflight(self, request: Request) -> bool:
        is_asked = "access-control-request-method" in request.headers
        return bool(self._origins) and request.method == "OPTIONS" and is_asked

    def _preflight(self, request: Request) -> HTTPResponse:
        headers = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Api-Key, If-None-Match",
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        }
        return empty(status=204, headers=headers)

    def _is_origin_allowed(self, request: Request) -> bool:
        """Programs send no origin; pages of the gateway itself are always welcome."""
        origin = request.headers.get("origin")
        if not self._origins or origin is None or EVERYBODY in self._origins:
            return True
        return origin in self._origins or urlsplit(origin).netloc == request.headers.get("host")


def _client(request: Request, guard: Guard) -> str:
    return guard.client(request.ip or "", request.headers.getall("x-forwarded-for", ()))


def _asked(request: Request) -> UpgradeRequest:
    headers: Mapping[str, str] = MappingProxyType(dict(reversed(list(request.headers.items()))))
    return UpgradeRequest(
        path=request.path,
        query=request.query_string,
        headers=headers,
        subprotocols=without_credentials(offered_subprotocols(request.headers)),
    )


def _named(answer: Acceptance, receiver: Counted | FirstFrame, asked: UpgradeRequest) -> Acceptance:
    subprotocol = answer.subprotocol
    if subprotocol is None and PLAIN_PROTOCOL in asked.subprotocols:
        subprotocol = PLAIN_PROTOCOL
    return msgspec.structs.replace(answer, receiver=receiver, subprotocol=subprotocol)


def _grant(host: GrantedHost, admission: Admission) -> None:
    grant: Grant = admission.grant
    rights = Rights(
        speak=grant.has("ingest"), listen=grant.has("read"), administer="admin" in grant.scopes
    )
    host.grant(rights, admission.meter, grant.session)


def _denied(denied: Denied) -> HTTPResponse:
    headers = {"Retry-After": str(denied.retry_after_s)} if denied.retry_after_s else {}
    if denied.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = _encode(ErrorBody(denied.detail, denied.code))
    return raw(body, status=denied.status, headers=headers, content_type=JSON)
