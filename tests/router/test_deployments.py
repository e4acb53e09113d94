"""The shared registry and the Deploy API (R10)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from router import Entry, Limits, MemoryRegistry, RouterProtocol
from router.errors import ConfigurationError, NameTaken, ServiceFailed, ServiceNotDeployed
from tests.router.support.serving import listening, named
from tests.router.support.working import Worker, working

SAMPLE = "tests.router.support.sample"
ONE = Entry(source=f"{SAMPLE}:one", tags=("blue",), limits=Limits(wall_ms=5000))
TWO = Entry(source=f"{SAMPLE}:two")
KEY = {"Authorization": "Bearer sesame"}


async def test_every_worker_serves_a_change_within_a_second_and_after_a_restart() -> None:
    store = MemoryRegistry()
    async with working(store) as first, working(store) as second:
        await first.deployments.deploy("Production", "db", ONE)
        assert b'"one"' in (await first.ask("db.do")).body
        async with asyncio.timeout(1):
            while b'"one"' not in (await second.ask("db.do")).body:
                await asyncio.sleep(0.01)
        await second.deployments.deploy("production", "db", TWO)
        async with asyncio.timeout(1):
            while b'"two"' not in (await first.ask("db.do")).body:
                await asyncio.sleep(0.01)
    async with working(store) as again:
        assert b'"two"' in (await again.ask("db.do")).body
        await again.deployments.remove("production", "db")
        assert b"not deployed" in (await again.ask("db.do")).body


async def test_changes_at_the_same_time_all_count() -> None:
    store = MemoryRegistry()
    async with working(store) as first, working(store) as second:
        await asyncio.gather(
            *(
                worker.deployments.deploy("production", f"{name}-{number}", ONE)
                for worker, name in ((first, "a"), (second, "b"))
                for number in range(5)
            )
        )
        assert len((await first.deployments.entries())["production"]) == 10


async def test_what_cannot_be_deployed_changes_nothing() -> None:
    async with working(MemoryRegistry()) as worker:
        deploy = worker.deployments.deploy
        await deploy("production", "db", ONE)
        with pytest.raises(NameTaken):
            await deploy("production", "db", TWO, only_new=True)
        with pytest.raises(ConfigurationError):
            await deploy("qa", "db", TWO)
        with pytest.raises(ConfigurationError):
            await deploy("production", "-db", TWO)
        for source in (f"{SAMPLE}:three", f"{SAMPLE}:four", "no.module:x", "nothing", "http://"):
            with pytest.raises((ServiceFailed, ConfigurationError)):
                await deploy("production", "db", Entry(source=source))
        with pytest.raises(ServiceNotDeployed):
            await worker.deployments.remove("staging", "db")
        assert b'"one"' in (await worker.ask("db.do")).body


async def test_an_entry_that_does_not_start_here_leaves_the_others_alone() -> None:
    store = MemoryRegistry()
    entries = {"production": {"auth": Entry(source="no.module:app"), "db": ONE}}
    await store.save(msgspec.json.encode(entries), 0)
    async with working(store) as worker:
        assert b'"one"' in (await worker.ask("db.do")).body
        assert b"not deployed" in (await worker.ask("auth.do")).body


async def test_the_deploy_api_needs_its_key() -> None:
    async with working(MemoryRegistry(), admin_key="sesame") as worker:
        for headers in ({}, {"Authorization": "Bearer sesam"}, {"Authorization": "Basic sesame"}):
            reply = await worker.ask("any.do", "/_deploy/services", headers=headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        reply = await worker.ask("any.do", "/_deploy/services", headers=KEY)
        assert (reply.status, reply.body) == (200, b'{"version":0,"services":{}}')
    async with working(MemoryRegistry()) as off:
        assert (await off.ask("any.do", "/_deploy/services", headers=KEY)).status == 404


async def test_the_deploy_api_registers_replaces_and_removes() -> None:
    options = {"admin_key": "sesame", "admin_host": "admin.local", "admin_prefix": "/"}
    async with working(MemoryRegistry(), **options) as worker:

        async def call(method: str, body: object = None, path: str = "production/db") -> int:
            data = b"" if body is None else msgspec.json.encode(body)
            target = f"/services/{path}"
            reply = await worker.ask("admin.local", target, method, headers=KEY, body=data)
            return reply.status

        assert await call("POST", ONE) == 201
        assert await call("POST", TWO) == 409
        assert b'"one"' in (await worker.ask("db.do")).body
        assert await call("PUT", TWO) == 200
        assert b'"two"' in (await worker.ask("db.do")).body
        assert await call("PUT", {"source": "nowhere"}) == 422
        assert await call("PUT", {"tags": []}) == 400
        assert await call("PUT", {"source": "x", "limits": {"wall_ms": 0}}) == 400
        assert await call("PUT", TWO, "qa/db") == 422
        assert await call("PATCH") == 405
        assert await call("DELETE") == 200
        assert await call("DELETE") == 404
        assert (await worker.ask("admin.local", "/other", headers=KEY)).status == 404
        assert (await worker.ask("db.do", "/services", headers=KEY)).status == 404


async def test_what_the_code_has_registered_comes_back_with_an_entrys_removal() -> None:
    worker = Worker(MemoryRegistry())
    worker.namespaces[0].register("db", f"{SAMPLE}:two")
    async with listening(worker.router.app(named("router")), protocol=RouterProtocol) as port:
        worker.port = port
        await worker.deployments.deploy("production", "db", ONE)
        assert b'"one"' in (await worker.ask("db.do")).body
        await worker.deployments.remove("production", "db")
        assert b'"two"' in (await worker.ask("db.do")).body


@pytest.mark.parametrize(
    "options",
    [{"admin_host": "a b"}, {"admin_prefix": "/"}, {"admin_prefix": "deploy"}],
)
def test_a_place_that_no_request_can_have_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Worker(MemoryRegistry(), admin_key="sesame", **options)
