"""Routers that are set up as vectors want them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from router import (
    DecisionSettings,
    Namespace,
    Router,
    RouterProtocol,
    RouterSettings,
    TableSettings,
)
from tests.router.support.serving import asgi_service, listening, named, sanic_service
from tests.router.vectors import VECTORS, Vector

MAKERS: dict[str, Any] = {"sanic": sanic_service, "asgi": asgi_service}


@contextlib.asynccontextmanager
async def serving_vector(vector: Vector, kind: str) -> AsyncIterator[int]:
    """A router for one vector, with services of one kind; gives the port."""
    namespaces = [Namespace(name) for name in ("production", "staging", "development")]
    if vector.env == "qa":
        namespaces.append(Namespace("qa"))
    for namespace in namespaces:
        if namespace.name == vector.env.lower():
            for name in vector.reg:
                namespace.register(name, MAKERS[kind](name, vector.raises))
    table = TableSettings(profile=vector.profile, zones=vector.zones)  # type: ignore[arg-type]
    settings = RouterSettings(
        decision=DecisionSettings(environment=vector.env, table=table), expose_errors=True
    )
    router = Router(namespaces, settings)
    if vector.cfgmissing or vector.env == "qa":
        del router.namespaces[vector.env.lower()]
    async with listening(router.app(named("router")), protocol=RouterProtocol) as port:
        yield port


def setup_of(vector: Vector) -> tuple[object, ...]:
    """Vectors of one setup can share a server."""
    return (
        vector.env,
        vector.reg,
        vector.profile,
        vector.zones,
        vector.raises,
        vector.cfgmissing,
    )


GROUPS = [
    list(group)
    for _, group in itertools.groupby(
        sorted(VECTORS, key=lambda vector: repr(setup_of(vector))), key=setup_of
    )
]
