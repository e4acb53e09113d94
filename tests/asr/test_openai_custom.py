"""A server that the client names: reached where it may be, with the client's key alone."""

from __future__ import annotations

import pytest

from edge.asr import allowed_hosts
from edge.asr.breaker import Breakers
from edge.asr.choice import Choices
from edge.asr.interface import CustomEndpoint, StreamRequest
from edge.asr.openai_custom import OpenAICustomRecognizer, OpenAICustomSettings, missing
from edge.asr.openai_realtime import OpenAISettings
from edge.asr.settings import SupervisorSettings
from edge.errors import RecognizerClosed, RecognizerRefused, SettingError
from tests.asr.fakes.openai_endpoint import KEY, RATE_HZ, FakeOpenAI, Fault
from tests.asr.support.events import Events
from tests.asr.support.supervision import until
from tests.asr.support.tones import sentence

URL = "wss://asr.example/v1/realtime"


def recognizer(*hosts: str, require_wss: bool = True, **openai: str) -> OpenAICustomRecognizer:
    settings = OpenAICustomSettings(
        enable_openai_custom_provider=True,
        openai_custom_require_wss=require_wss,
        openai_custom_allowed_hosts=hosts,
    )
    return OpenAICustomRecognizer(settings, OpenAISettings(**openai))


def asking(url: str, key: str = KEY) -> StreamRequest:
    return StreamRequest(track="tag-1", custom=CustomEndpoint(url, key))


async def test_it_speaks_to_the_clients_server_with_the_clients_key() -> None:
    async with FakeOpenAI() as endpoint:
        events = Events()
        opener = recognizer("127.0.0.1", require_wss=False, openai_api_key="sk-of-the-operator")
        stream = await opener.open(asking(endpoint.url), events)
        stream.send(sentence("alpha", RATE_HZ, pause_ms=400))
        await until(lambda: events.texts)
        await stream.close()
        heard = endpoint.connections[0]
    assert events.texts == ["alpha"]
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert "sk-of-the-operator" not in str(heard.headers)


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (
            StreamRequest(track="t"),
            "X-Custom-Openai-Api-Key header is required for openai_custom provider",
        ),
        (asking(URL, ""), "X-Custom-Openai-Api-Key header is required for openai_custom provider"),
        (asking(""), "openaiCustomUrl query parameter is required for openai_custom provider"),
        (asking("nonsense"), "openaiCustomUrl is not a valid URL"),
        (asking("https://asr.example/"), "openaiCustomUrl is not a valid URL"),
        (asking("wss://user:pass@asr.example/"), "openaiCustomUrl is not a valid URL"),
        (asking("wss://asr.example:99999/"), "openaiCustomUrl is not a valid URL"),
        (asking("wss://asr.example/#x"), "openaiCustomUrl is not a valid URL"),
        (asking("wss://asr.example/a b"), "openaiCustomUrl is not a valid URL"),
        (asking("wss://asr.example/" + "a" * 3000), "openaiCustomUrl is not a valid URL"),
        (
            asking("ws://asr.example/"),
            "openaiCustomUrl must use wss:// scheme"
            " (set OPENAI_CUSTOM_REQUIRE_WSS=false to allow ws://)",
        ),
        (
            asking("wss://other.example/"),
            "openaiCustomUrl names a host that is not in OPENAI_CUSTOM_ALLOWED_HOSTS",
        ),
        (
            asking("wss://127.0.0.1/"),
            "openaiCustomUrl names a host that is not in OPENAI_CUSTOM_ALLOWED_HOSTS",
        ),
        (asking(URL), None),
    ],
)
async def test_what_is_wrong_is_told_before_anything_is_connected(
    request_: StreamRequest, problem: str | None
) -> None:
    opener = recognizer("asr.example")
    assert opener.problem(request_) == problem
    assert len((problem or "").encode()) <= 123, "it fits a close frame"
    if problem is not None:
        with pytest.raises(RecognizerRefused):
            await opener.open(request_, Events())


async def test_a_name_is_looked_up_once_and_its_checked_address_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the name points to a moment later, the connection has its address already."""
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(allowed_hosts, "look_up", look_up)
    async with FakeOpenAI() as endpoint:
        url = endpoint.url.replace("127.0.0.1", "asr.example")
        opener = recognizer("asr.example", "127.0.0.1", require_wss=False)
        await (await opener.open(asking(url), Events())).close()
        assert asked == ["asr.example"]
        assert endpoint.connections[0].headers["host"].startswith("asr.example:")

        with pytest.raises(RecognizerRefused, match="not public"):
            await recognizer("asr.example", require_wss=False).open(asking(url), Events())
        assert len(endpoint.connections) == 1


async def test_a_name_without_an_address_may_have_one_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def look_up(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    monkeypatch.setattr(allowed_hosts, "look_up", look_up)
    with pytest.raises(RecognizerClosed, match=r"asr\.example is not known"):
        await recognizer("asr.example").open(asking(URL), Events())


async def test_the_next_address_is_tried_when_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def look_up(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(allowed_hosts, "look_up", look_up)
    async with FakeOpenAI() as endpoint:
        url = endpoint.url.replace("127.0.0.1", "asr.example")
        opener = recognizer("asr.example", "127.0.0.0/8", require_wss=False)
        await (await opener.open(asking(url), Events())).close()
        assert len(endpoint.connections) == 1


async def test_a_wrong_key_is_the_clients_to_mend_and_not_repeated() -> None:
    async with FakeOpenAI() as endpoint:
        opener = recognizer("127.0.0.1", require_wss=False)
        with pytest.raises(RecognizerRefused, match="X-Custom-Openai-Api-Key") as caught:
            await opener.open(asking(endpoint.url, "sk-wrong"), Events())
    assert "sk-wrong" not in str(caught.value)


async def ended(events: Events) -> None:
    await until(lambda: events.ended)


async def test_the_words_of_its_errors_blame_the_clients_server_and_not_openai() -> None:
    said = {"type": "server_error", "message": "overloaded"}
    faults = [Fault(close_code=1011), Fault(error_after_ms=0, error=said)]
    async with FakeOpenAI(faults=faults) as endpoint:
        opener = recognizer("127.0.0.1", require_wss=False)
        events = [Events(), Events()]
        for each in events:
            stream = await opener.open(asking(endpoint.url), each)
            await ended(each)
            await stream.close()
    assert all(str(each.error).startswith("openai_custom") for each in events)


def test_each_listed_host_is_a_service_of_its_own() -> None:
    """The failures of one client's server do not keep others from theirs."""
    opener = recognizer("asr.example", "10.0.0.0/8")
    services = [
        opener.service_of(asking(url))
        for url in (
            URL,
            "wss://asr.example/other",
            "wss://10.0.0.1/",
            "wss://10.0.0.2/",
            "nonsense",
        )
    ]
    assert services == [
        "openai_custom asr.example",
        "openai_custom asr.example",
        "openai_custom 10.0.0.0/8",
        "openai_custom 10.0.0.0/8",
        "openai_custom",
    ]


def test_a_dead_server_of_one_client_bars_no_other_from_theirs() -> None:
    opener, settings = recognizer("dead.example", "good.example"), SupervisorSettings()
    breakers = Breakers(settings)
    dead, good = asking("wss://dead.example/"), asking("wss://good.example/")
    for _ in range(settings.breaker_failures):
        permit = breakers.of(opener.service_of(dead)).acquire(0.0)
        assert permit is not None
        permit.failed(0.0)
    waits = []
    for request in (dead, good):
        upcoming = Choices([opener], breakers, settings, request).next(0.0)
        assert upcoming is not None
        waits.append(upcoming[1])
    assert waits[0] > 0 and waits[1] == 0


def test_an_endpoint_shows_neither_key_nor_address() -> None:
    assert KEY not in repr(asking(URL)) and "asr.example" not in repr(asking(URL))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (OpenAICustomSettings(), "set ENABLE_OPENAI_CUSTOM_PROVIDER=true"),
        (
            OpenAICustomSettings(enable_openai_custom_provider=True),
            "set OPENAI_CUSTOM_ALLOWED_HOSTS",
        ),
        (
            OpenAICustomSettings(
                enable_openai_custom_provider=True, openai_custom_allowed_hosts=("asr.example",)
            ),
            None,
        ),
    ],
)
def test_it_is_refused_without_a_list_of_hosts(
    settings: OpenAICustomSettings, reason: str | None
) -> None:
    assert missing(settings) == reason


def test_a_list_with_a_mistake_stops_the_start() -> None:
    with pytest.raises(SettingError, match="OPENAI_CUSTOM_ALLOWED_HOSTS"):
        recognizer("https://asr.example/")
