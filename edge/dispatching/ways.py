"""Which way finals take, as the settings have it; a way is one entry of ``WAYS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from dispatch.interface import Transport
from dispatch.transports.binding import BindingTransport
from edge.dispatching.settings import DispatchSettings
from edge.errors import MissingDependency, SettingError

QUEUE_FILE = "dispatch-queue.db"

_headers = msgspec.json.Decoder(dict[str, str]).decode

Lookup = Callable[[str], Any]
"""The object that a service of the router offers to others in this process."""


class Surroundings(msgspec.Struct, frozen=True):
    """What ways need beside their settings."""

    data_dir: Path
    lookup: Lookup | None = None
    """None while the router is off."""
    durability: Literal["normal", "full"] = "normal"
    """That of the session store: what it keeps the queue keeps."""


Build = Callable[[DispatchSettings, Surroundings], Transport]


def _sqs(settings: DispatchSettings, around: Surroundings) -> Transport:
    from dispatch.transports.sqs import SqsTransport

    return SqsTransport(
        settings.dispatch_sqs_url,
        region=settings.dispatch_sqs_region,
        endpoint_url=settings.dispatch_sqs_endpoint or None,
        deadline_s=settings.dispatch_deadline_s,
    )


def _redis(settings: DispatchSettings, around: Surroundings) -> Transport:
    try:
        from dispatch.transports.redis import RedisTransport
    except ImportError as error:
        raise MissingDependency("redis", "redis") from error
    return RedisTransport(settings.dispatch_redis_url, deadline_s=settings.dispatch_deadline_s)


def _local(settings: DispatchSettings, around: Surroundings) -> Transport:
    from dispatch.local_queue import LocalQueue
    from dispatch.transports.local import LocalTransport

    queue = LocalQueue(
        around.data_dir / QUEUE_FILE,
        durability=around.durability,
        deadline_s=settings.dispatch_deadline_s,
    )
    return LocalTransport(queue)


def _binding(settings: DispatchSettings, around: Surroundings) -> Transport:
    target = settings.dispatch_binding
    if ":" in target:
        try:
            return BindingTransport(target, settings.dispatch_deadline_s)
        except (ValueError, ImportError, AttributeError) as error:
            raise SettingError("dispatch_binding", target, str(error)) from error
    if around.lookup is None:
        reason = "write module:attribute; services of the router have names while it is on"
        raise SettingError("dispatch_binding", target, reason)
    return BindingTransport(around.lookup(target), settings.dispatch_deadline_s)


def _http(settings: DispatchSettings, around: Surroundings) -> Transport:
    from dispatch.transports.http import HttpTransport

    return HttpTransport(
        settings.dispatch_http_url,
        headers=headers(settings),
        secret=settings.dispatch_secret.encode(),
        deadline_s=settings.dispatch_deadline_s,
    )


def _websocket(settings: DispatchSettings, around: Surroundings) -> Transport:
    from dispatch.transports.websocket import WebSocketTransport

    return WebSocketTransport(
        settings.dispatcher_ws_url,
        headers=headers(settings),
        deadline_s=settings.dispatch_deadline_s,
    )


WAYS: Mapping[str, Build] = {
    "sqs": _sqs,
    "redis": _redis,
    "local": _local,
    "binding": _binding,
    "http": _http,
    "websocket": _websocket,
}


URLS: Mapping[str, str] = {
    "sqs": "dispatch_sqs_url",
    "redis": "dispatch_redis_url",
    "http": "dispatch_http_url",
    "websocket": "dispatcher_ws_url",
}
"""The settings that a transport cannot be made for, if it cannot; they may hold passwords."""


def way(settings: DispatchSettings) -> str:
    """The name of the way that is taken; empty when there is none."""
    chosen = {
        "sqs": settings.dispatch_sqs_url,
        "redis": settings.dispatch_redis_url,
        "local": settings.dispatch_local == "on",
        "binding": settings.dispatch_binding,
        "http": settings.dispatch_http_url,
        "websocket": settings.dispatcher_ws_url,
    }
    fallback = "local" if settings.dispatch_local == "auto" else ""
    return next((name for name, is_set in chosen.items() if is_set), fallback)


def headers(settings: DispatchSettings) -> dict[str, str]:
    """Headers of posts and WebSockets; raises ``SettingError``."""
    try:
        return _headers(settings.dispatcher_headers)
    except msgspec.DecodeError as error:
        reason = f"it is not a JSON object of texts: {error}"
        raise SettingError("dispatcher_headers", "***", reason) from error


def build_way(settings: DispatchSettings, around: Surroundings) -> Transport | None:
    """The transport that is taken, not yet open; None when there is none.

    Raises ``SettingError``, and ``MissingDependency`` when a package for it is not installed.
    """
    name = way(settings)
    try:
        return WAYS[name](settings, around) if name else None
    except ValueError as error:
        raise SettingError(URLS[name], "***", str(error)) from None
