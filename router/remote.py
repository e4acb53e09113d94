"""Services behind a URL: each request is forwarded, each response passed back, nothing kept."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from router.errors import ConfigurationError, ServiceFailed
from router.front import RoutedRequest
from router.service import Limits, Service
from router.tunnel import Tunnel
from router.upstream import Upstream, UpstreamPool, end_to_end
from router.writing import RawResponse, header_line

CONNECT_DEADLINE_S = 5.0
HEAD_DEADLINE_S = 60.0
"""From the request's last byte to the response's head."""
MOVE_DEADLINE_S = 300.0
"""For each piece of a body, either way."""
MAX_IDLE = 64


class RemoteService(Service):
    """An ``http://`` or ``https://`` upstream, HTTP/1.1 and WebSocket.

    The Host header and all others are those of the client; those of one hop are not forwarded. A
    request without a body is sent once more when a connection from the pool turns out to be dead.
    """

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        tags: tuple[str, ...] = (),
        *,
        head_deadline_s: float = HEAD_DEADLINE_S,
        move_deadline_s: float = MOVE_DEADLINE_S,
    ) -> None:
        super().__init__(limits, tags)
        self.url = url
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{url!r} is no URL of an upstream: {error}") from None
        tls = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no URL of an upstream: write http(s)://host:port")
        if parts.path.strip("/") or parts.query or parts.username:
            raise ConfigurationError(f"{url!r}: an upstream has neither path, query nor user")
        self._head_deadline_s = head_deadline_s
        self._move_deadline_s = move_deadline_s
        self._pool = UpstreamPool(
            parts.hostname,
            port or (443 if tls else 80),
            tls=tls,
            max_idle=MAX_IDLE,
            connect_s=CONNECT_DEADLINE_S,
        )
        self._tunnels: set[Tunnel] = set()

    async def stop(self) -> None:
        """Close the pool and what is still tunnelled."""
        self._pool.close()
        for tunnel in list(self._tunnels):
            tunnel.close()

    async def handle(self, request: RoutedRequest) -> None:
        """Forward the request and pass the response back."""
        exchange = request.exchange
        exchange.request_max_size = float("inf")
        head = _request_head(request)
        upstream, was_used = await self._pool.take()
        try:
            try:
                sending = await self._ask(request, upstream, head)
            except ServiceFailed:
                if not was_used or upstream.received_any or "content-length" in request.headers:
                    raise
                if "transfer-encoding" in request.headers:
                    raise
                upstream.close()
                upstream, _ = await self._pool.take(fresh=True)
                sending = await self._ask(request, upstream, head)
            try:
                if upstream.is_upgraded:
                    await self._tunnel(request, upstream)
                    return
                await self._pass_back(request, upstream)
                if not sending.done():
                    upstream.close()
            finally:
                await _ended(sending)
        except BaseException:
            upstream.close()
            raise
        self._pool.give_back(upstream)

    async def _ask(
        self, request: RoutedRequest, upstream: Upstream, head: bytes
    ) -> asyncio.Task[None]:
        """Send the request and wait for the response's head; returns the body's sending."""
        upstream.begin(head, is_head=request.method == "HEAD")
        sending = asyncio.get_running_loop().create_task(self._send_body(request, upstream))
        answered = asyncio.ensure_future(upstream.head())
        try:
            await asyncio.wait((sending, answered), return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                # A body that cannot be had is the client's fault, one that cannot be sent is told
                # by the response that does not come.
                if (error := sending.exception()) is not None and not isinstance(
                    error, ServiceFailed
                ):
                    raise error
                async with asyncio.timeout(self._head_deadline_s):
                    await answered
            answered.result()
        except TimeoutError:
            await _ended(sending)
            where = self._pool.address
            raise ServiceFailed(f"the upstream {where} does not answer") from None
        except BaseException:
            await _ended(sending)
            raise
        finally:
            await _ended(answered)
        return sending

    async def _send_body(self, request: RoutedRequest, upstream: Upstream) -> None:
        exchange = request.exchange
        chunked = exchange.is_chunked
        while exchange.request_body:
            async with asyncio.timeout(self._move_deadline_s):
                data = await exchange.read()
                if data:
                    await upstream.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        if chunked:
            await upstream.write(b"0\r\n\r\n")

    async def _pass_back(self, request: RoutedRequest, upstream: Upstream) -> None:
        response = RawResponse(request)
        headers = end_to_end(upstream.headers)
        await response.start(upstream.status, upstream.reason, headers)
        while True:
            try:
                async with asyncio.timeout(self._move_deadline_s):
                    data = await upstream.piece()
            except TimeoutError:
                raise ServiceFailed("nothing moves in the upstream's response") from None
            if data is None:
                break
            await response.write(data)
        await response.finish(upstream.trailers)

    async def _tunnel(self, request: RoutedRequest, upstream: Upstream) -> None:
        """Relay bytes both ways from the upstream's 101 on, until either side closes."""
        lines = [b"HTTP/1.1 101 " + (upstream.reason or b"Switching Protocols")]
        lines += [header_line(name, value) for name, value in upstream.headers]
        transport, rest = request.exchange.let_go()
        assert upstream.transport is not None
        tunnel = Tunnel(transport, upstream.transport)
        self._tunnels.add(tunnel)
        try:
            transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + upstream.rest)
            if rest:
                upstream.transport.write(rest)
            tunnel.open()
            await tunnel.closed.wait()
        finally:
            self._tunnels.discard(tunnel)
            tunnel.close()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _request_head(request: RoutedRequest) -> bytes:
    """The head to forward: names as written, values as they came."""
    decision = request.decision
    fields: list[tuple[bytes, bytes]] = []
    for line in request.head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    headers = end_to_end(fields)
    if decision.authority is not None:
        host = decision.authority.encode(errors="surrogateescape")
        headers = [(name, host if name.lower() == b"host" else value) for name, value in headers]
    lines = [f"{request.method} {decision.path}{decision.query} HTTP/1.1".encode("ascii")]
    # The router itself tells the client to continue, once it reads the body.
    lines += [header_line(name, value) for name, value in headers if name.lower() != b"expect"]
    if not any(name.lower() == b"host" for name, _ in headers):
        lines.append(b"Host: " + decision.host.encode("ascii"))
    if request.exchange.is_chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if request.is_upgrade:
        lines += [b"Connection: Upgrade", b"Upgrade: websocket"]
    return b"\r\n".join(lines) + b"\r\n\r\n"
