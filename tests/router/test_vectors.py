"""Every vector through a real server, for each kind of service."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from router import (
    DecisionSettings,
    Namespace,
    Router,
    RouterProtocol,
    RouterSettings,
    TableSettings,
)
from tests.router.support.serving import (
    asgi_service,
    connected,
    listening,
    named,
    sanic_service,
)
from tests.router.vectors import VECTORS, Vector

MAKERS: dict[str, Any] = {"sanic": sanic_service, "asgi": asgi_service}


@contextlib.asynccontextmanager
async def serving_vector(vector: Vector, kind: str) -> AsyncIterator[int]:
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


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "-".join(v.id for v in group)[:24])
async def test_vectors_through_a_server(group: list[Vector], kind: str) -> None:
    async with serving_vector(group[0], kind) as port:
        for vector in group:
            await check(vector, port)


async def check(vector: Vector, port: int) -> None:
    async with connected(port) as client:
        headers = {"X-Forwarded-Host": "db.do"} if vector.id == "B43" else {}
        reply = await client.ask(vector.host, vector.target, vector.method, vector.ver, headers)
    assert reply.status == vector.expect_status, vector
    if vector.method == "HEAD":
        assert reply.body == b"", vector
    elif vector.service is not None:
        told = msgspec.json.decode(reply.body)
        assert (told["service"], told["method"]) == (vector.service, vector.method), vector
    else:
        assert reply.body == vector.body, vector
        plain = isinstance(vector.expect, str)
        kinds = ("application/json", "text/plain;charset=UTF-8")
        assert reply.headers["content-type"] == kinds[plain], vector
