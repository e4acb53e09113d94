"""An independent judge: the same requests through a real nginx in front reach the same services."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.router.support.serving import Reply, connected
from tests.router.support.vector_serving import GROUPS, serving_vector
from tests.router.vectors import Vector
from tests.support.nginx import in_front, nginx
from tests.support.server import free_port

REFUSED = {
    "B08": "a Host that ends with two dots",
    "B17": "an empty Host",
    "B23": "a Host with a blank",
    "C19": "a path that climbs above the root",
    "C29": "the target *",
    "C31": "a path with %00",
    "D08": "CONNECT",
}
"""What nginx answers with a page of its own, 400."""
CHANGED = {
    "B19": "HTTP/1.0 without Host",
    "B20": "HTTP/1.0 without Host",
}
"""What nginx passes on as another request: here with HTTP/1.1 and an empty Host."""


async def asked(vector: Vector, port: int) -> Reply:
    headers = {"X-Forwarded-Host": "db.do"} if vector.id == "B43" else {}
    async with connected(port) as client:
        return await client.ask(vector.host, vector.target, vector.method, vector.ver, headers)


@pytest.mark.skipif(nginx() is None, reason="there is no nginx here; tools/nginx.sh fetches one")
async def test_a_proxy_that_passes_the_host_on_changes_no_decision(tmp_path: Path) -> None:
    told: dict[str, Reply] = {}
    async with contextlib.AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(serving_vector(group[0], "asgi")) for group in GROUPS
        ]
        ports: set[int] = set()
        while len(ports) < len(routers):
            ports.add(free_port())
        fronts = dict(zip(ports, routers, strict=True))
        stack.enter_context(in_front(fronts, tmp_path))
        for group, (front, router) in zip(GROUPS, fronts.items(), strict=True):
            for vector in group:
                direct, told[vector.id] = await asked(vector, router), await asked(vector, front)
                if vector.id not in REFUSED | CHANGED:
                    assert told[vector.id].status == direct.status, vector
                    assert told[vector.id].body == direct.body, vector
    assert len(told) == 97
    for name in REFUSED:
        assert told[name].status == 400 and b"<html>" in told[name].body
    for name in CHANGED:
        assert told[name].status == 400 and b"Invalid Host header" in told[name].body
