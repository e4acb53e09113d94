"""A dispatcher that is a service of the router, named as the setting names it."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

import pytest

from dispatch import DispatcherTranscriptionMessage, Envelope, RPCResponse, Unreachable
from dispatch.messages import encode_message
from edge.dispatching.settings import DispatchSettings
from edge.dispatching.ways import Surroundings, build_way
from edge.errors import SettingError
from edge.server.routing import lookup_in
from router import Service
from router.configuration import FileSettings, router_of
from router.front import RoutedRequest

MESSAGE = DispatcherTranscriptionMessage(session_id="s", endpoint_id="a", text="hi", timestamp=1)
ENVELOPE = Envelope("s:1", "s", encode_message(MESSAGE), 1, "epoch", 1)


class Keeper(Service):
    """Keeps what it is handed; it answers no requests."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[DispatcherTranscriptionMessage] = []

    def handle(self, request: RoutedRequest) -> Awaitable[None]:
        raise NotImplementedError

    @property
    def binding(self) -> Keeper:
        return self

    async def dispatch(self, message: DispatcherTranscriptionMessage) -> RPCResponse:
        self.kept.append(message)
        return RPCResponse(success=True, dispatched=1)


@pytest.mark.parametrize("name", ["archive", "staging/archive"])
async def test_messages_wait_until_the_service_is_deployed(name: str, tmp_path: Path) -> None:
    router = router_of(FileSettings())
    settings = DispatchSettings(dispatch_binding=name)
    transport = build_way(settings, Surroundings(tmp_path, lookup_in(router)))
    assert transport is not None
    with pytest.raises(Unreachable, match="not deployed"):
        await transport.send([ENVELOPE])
    keeper = Keeper()
    environment = "staging" if "/" in name else "production"
    router.namespaces[environment].register("archive", keeper)
    assert await transport.send([ENVELOPE]) == 1
    assert keeper.kept == [MESSAGE]


def test_an_environment_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = DispatchSettings(dispatch_binding="moon/archive")
    with pytest.raises(SettingError, match="no environment moon"):
        build_way(settings, Surroundings(tmp_path, lookup_in(router_of(FileSettings()))))


def test_a_name_needs_the_router(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="module:attribute"):
        build_way(DispatchSettings(dispatch_binding="archive"), Surroundings(tmp_path))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "LocalTransport"),
        ({"dispatch_local": "off"}, None),
        ({"dispatcher_ws_url": "ws://h/"}, "WebSocketTransport"),
        ({"dispatcher_ws_url": "ws://h/", "dispatch_http_url": "http://h/"}, "HttpTransport"),
        ({"dispatch_http_url": "http://h/", "dispatch_local": "on"}, "LocalTransport"),
        ({"dispatch_local": "on", "dispatch_redis_url": "redis://h/0"}, "RedisTransport"),
        (
            {"dispatch_redis_url": "redis://h/0", "dispatch_sqs_url": "http://h/1/q.fifo"},
            "SqsTransport",
        ),
    ],
)
def test_queues_come_before_calls(
    settings: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    transport = build_way(DispatchSettings(**settings), Surroundings(tmp_path))  # type: ignore[arg-type]
    assert (None if transport is None else type(transport).__name__) == expected
