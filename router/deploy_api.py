"""The Deploy API: the registry over HTTP, an ASGI application behind a bearer key.

``GET …/services``, ``POST`` (register), ``PUT`` (replace) and ``DELETE`` of
``…/services/<environment>/<name>``, whose body is an ``Entry``.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from router.asgi import Receive, Scope, Send
from router.deployments import Deployments, Entry
from router.errors import (
    ConfigurationError,
    NameTaken,
    RegistryUnavailable,
    RouterError,
    ServiceNotDeployed,
    VersionConflict,
)
from router.hosts import normalise_host

MAX_BODY = 64 * 1024
Admits = Callable[[str, str], Awaitable[bool]]
"""Whether a bearer key is good here; it is told the client's address, too."""

_entries = msgspec.json.Decoder(Entry)


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class DeployApi:
    """Serves the paths under ``prefix``, to those who know ``key``, or a key that is admitted."""

    def __init__(
        self,
        deployments: Deployments,
        key: str,
        *,
        host: str = "",
        prefix: str = "/_deploy",
        admits: Admits | None = None,
    ) -> None:
        """Raises ``ConfigurationError``."""
        if not key and admits is None:
            raise ConfigurationError("the Deploy API needs a key")
        admin_host = normalise_host(host) if host else ""
        if admin_host is None:
            raise ConfigurationError(f"{host!r} in admin_host is no host name")
        if not prefix.startswith("/") or not (admin_host or prefix.strip("/")):
            raise ConfigurationError(
                f"{prefix!r} in admin_prefix is no prefix: write /path, or / with an admin_host"
            )
        self._deployments = deployments
        self._key = key.encode()
        self._admits = admits
        self._host = admin_host
        self._prefix = prefix.rstrip("/")

    def matches(self, host: str, path: str) -> bool:
        """Whether a request is for this API: by its host, when one is set, and its path."""
        return (not self._host or host == self._host) and path.startswith(self._prefix + "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        try:
            status, told = await self._answer(scope, receive)
        except _Refused as refused:
            status, told = refused.status, {"error": str(refused)}
        except ServiceNotDeployed as error:
            status, told = 404, {"error": str(error)}
        except NameTaken as error:
            status, told = 409, {"error": str(error)}
        except (VersionConflict, RegistryUnavailable) as error:
            status, told = 503, {"error": str(error)}
        except RouterError as error:
            status, told = 422, {"error": str(error)}
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        body = msgspec.json.encode(told)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer" or not await self._is_good(key.strip(), scope):
            raise _Refused(401, "the Deploy API needs its key as a bearer token")
        method = scope["method"]
        match scope["path"].removeprefix(self._prefix).split("/")[1:]:
            case ["services"]:
                if method != "GET":
                    raise _Refused(405, "use GET")
                return 200, {
                    "version": self._deployments.version,
                    "services": await self._deployments.entries(),
                }
            case ["services", environment, name]:
                return await self._change(method, environment, name, receive)
        raise _Refused(404, "there is nothing here but /services")

    async def _is_good(self, key: bytes, scope: Scope) -> bool:
        if self._key and hmac.compare_digest(key, self._key):
            return True
        if self._admits is None:
            return False
        address, _ = scope.get("client") or ("", 0)
        return await self._admits(key.decode(errors="replace"), address)

    async def _change(
        self, method: str, environment: str, name: str, receive: Receive
    ) -> tuple[int, Any]:
        if method == "DELETE":
            await self._deployments.remove(environment, name)
            return 200, {"version": self._deployments.version}
        if method not in ("POST", "PUT"):
            raise _Refused(405, "use POST, PUT or DELETE")
        try:
            entry = _entries.decode(await _body(receive))
        except msgspec.DecodeError as error:
            raise _Refused(400, f"the body is no service entry: {error}") from None
        is_new = await self._deployments.deploy(environment, name, entry, only_new=method == "POST")
        return 201 if is_new else 200, {"version": self._deployments.version}


async def _body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
        if len(body) > MAX_BODY:
            raise _Refused(413, f"a service entry has at most {MAX_BODY} bytes")
    return body
