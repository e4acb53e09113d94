"""A media server that brings its own OpenAI-compatible service, through a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from tests.asr.fakes.openai_endpoint import KEY, FakeOpenAI
from tests.ingest.support.media import client
from tests.support.server import Server, running

HEADER = "X-Custom-Openai-Api-Key"
URL = quote("wss://asr.example/v1", safe="")
NAMED = "sendBack=true&provider=openai_custom"


@asynccontextmanager
async def custom_gateway(**changes: str) -> AsyncIterator[tuple[Server, FakeOpenAI]]:
    """A gateway that lets clients name servers on this machine, and one of those."""
    async with FakeOpenAI() as endpoint:
        environment = {
            "ENABLE_OPENAI_CUSTOM_PROVIDER": "true",
            "OPENAI_CUSTOM_REQUIRE_WSS": "false",
            "OPENAI_CUSTOM_ALLOWED_HOSTS": "127.0.0.1,asr.example",
            "ENABLE_DUMMY_PROVIDER": "true",
            "PROVIDERS_PRIORITY": "dummy",
            **changes,
        }
        with running("--workers", "1", environment=environment) as server:
            yield server, endpoint


@pytest.mark.parametrize("name", ["openai_custom", "Custom_OpenAI"])
async def test_the_clients_service_transcribes_with_the_clients_key(name: str) -> None:
    async with custom_gateway() as (server, endpoint):
        query = f"sendBack=true&provider={name}&openaiCustomUrl={quote(endpoint.url, safe='')}"
        async with client(server, query, {HEADER.lower(): KEY}) as media:
            await media.say("tag-1", "alpha bravo")
            await media.until(lambda: media.finals())
            assert media.text("tag-1") == "alpha bravo"
            assert media.of("info")[0]["provider"] == "openai_custom"
        assert endpoint.connections[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in server.log


async def test_what_is_missing_or_wrong_closes_with_1002_and_the_reason() -> None:
    with_key = {HEADER: KEY}
    cases: list[tuple[str, dict[str, str], str]] = [
        (
            f"{NAMED}&openaiCustomUrl={URL}",
            {},
            "X-Custom-Openai-Api-Key header is required for openai_custom provider",
        ),
        (
            NAMED,
            with_key,
            "openaiCustomUrl query parameter is required for openai_custom provider",
        ),
        (f"{NAMED}&openaiCustomUrl=nonsense", with_key, "openaiCustomUrl is not a valid URL"),
        (
            f"{NAMED}&openaiCustomUrl=ws%3A%2F%2Fasr.example",
            with_key,
            "openaiCustomUrl must use wss:// scheme"
            " (set OPENAI_CUSTOM_REQUIRE_WSS=false to allow ws://)",
        ),
        (
            f"{NAMED}&openaiCustomUrl=wss%3A%2F%2F169.254.169.254%2F",
            with_key,
            "openaiCustomUrl names a host that is not in OPENAI_CUSTOM_ALLOWED_HOSTS",
        ),
    ]
    async with custom_gateway(OPENAI_CUSTOM_REQUIRE_WSS="true") as (server, endpoint):
        for query, headers, reason in cases:
            async with client(server, query, headers) as media:
                assert await media.closed() == (1002, reason)
        assert not endpoint.connections


async def test_without_a_list_of_hosts_it_is_not_available() -> None:
    async with custom_gateway(OPENAI_CUSTOM_ALLOWED_HOSTS="") as (server, endpoint):
        query = f"{NAMED}&openaiCustomUrl={quote(endpoint.url, safe='')}"
        async with client(server, query, {HEADER: KEY}) as media:
            code, reason = await media.closed()
            assert code == 1002
            assert reason.startswith("Provider 'openai_custom' is not available.")
