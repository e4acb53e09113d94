"""From what names a service to a service that can be started."""

from __future__ import annotations

import importlib
from typing import Any

from sanic import Blueprint, Sanic

from router.asgi import AsgiService
from router.errors import ServiceFailed
from router.remote import RemoteService
from router.sanic_service import SanicService
from router.service import Limits, Service

ServiceSource = Any
"""A ``Service``, Sanic application, blueprint, ASGI application, ``module:attribute`` or URL."""


def service_of(
    source: ServiceSource, limits: Limits | None = None, tags: tuple[str, ...] = ()
) -> Service:
    """The service of a source, not started. Raises ``ServiceFailed``."""
    if isinstance(source, str):
        if source.startswith(("http://", "https://")):
            return RemoteService(source, limits, tags)
        source = load(source)
    if isinstance(source, Service):
        return source
    if isinstance(source, Sanic | Blueprint):
        return SanicService(source, limits, tags)
    if callable(source):
        return AsgiService(source, limits, tags)
    raise ServiceFailed(f"{source!r} is neither a Sanic nor an ASGI application")


def load(path: str) -> Any:
    """The attribute that ``module:attribute`` names. Raises ``ServiceFailed``."""
    module, colon, attribute = path.partition(":")
    if not (colon and module and attribute):
        raise ServiceFailed(
            f"{path!r} names no service: write module:attribute, http://… or https://…"
        )
    try:
        found = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as error:
        raise ServiceFailed(f"{path!r} cannot be loaded: {error}") from error
    return found
