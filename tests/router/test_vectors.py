"""Every vector through a real server, for each kind of service."""

from __future__ import annotations

import msgspec
import pytest

from tests.router.support.serving import connected
from tests.router.support.vector_serving import GROUPS, MAKERS, serving_vector
from tests.router.vectors import Vector


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
