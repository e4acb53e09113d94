"""Which recognizers can be used, in which order, and what is said when none can."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from edge.asr.openai_custom import OpenAICustomSettings
from edge.asr.openai_realtime import OpenAISettings
from edge.asr.registry import ENTRIES, RecognizerConfig, Recognizers, recognizer_rooms, survey
from edge.asr.settings import ChoiceSettings
from edge.errors import NoRecognizer, SettingError

KEYED = OpenAISettings(openai_api_key="sk-test")


def config(
    *priority: str, openai: OpenAISettings | None = None, dummy: bool = False
) -> RecognizerConfig:
    return RecognizerConfig(
        choice=ChoiceSettings(providers_priority=priority, enable_dummy_provider=dummy),
        rooms=(openai or OpenAISettings(),),
    )


@pytest.fixture
def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of the embedded extra are not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "onnxruntime" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.fixture
def extra() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("NOT TESTED: the extra 'embedded' is not installed")


@pytest.mark.usefixtures("extra")
def test_those_with_keys_come_first_then_the_embedded_one() -> None:
    found = survey(config(openai=KEYED, dummy=True))
    assert found.order == ("openai", "embedded")
    assert found.default == "openai"
    assert found.available == ("openai", "embedded", "dummy")
    assert found.known == tuple(entry.name for entry in ENTRIES)


@pytest.mark.usefixtures("extra")
def test_without_a_key_the_embedded_one_is_the_default() -> None:
    assert survey(config()).order == ("embedded",)


@pytest.mark.usefixtures("no_extra")
def test_the_dummy_serves_only_if_nothing_else_can() -> None:
    assert survey(config(dummy=True)).order == ("dummy",)
    assert survey(config(openai=KEYED, dummy=True)).order == ("openai",)


@pytest.mark.usefixtures("no_extra")
def test_nothing_to_use_names_the_keys_and_the_extra() -> None:
    with pytest.raises(NoRecognizer) as refused:
        survey(config())
    assert "OPENAI_API_KEY" in str(refused.value)
    assert "pip install 'edgescribe[embedded]'" in str(refused.value)


def test_a_priority_list_is_order_and_choice_in_any_case() -> None:
    found = survey(config("Dummy", " OPENAI ", "dummy", openai=KEYED, dummy=True))
    assert found.order == ("dummy", "openai")


def test_a_priority_list_written_for_the_reference_works() -> None:
    assert survey(config("openai", "deepgram", "gemini", openai=KEYED)).order == ("openai",)


def test_a_priority_list_of_what_cannot_be_used_says_why() -> None:
    with pytest.raises(NoRecognizer, match="dummy: set ENABLE_DUMMY_PROVIDER=true"):
        survey(config("dummy", openai=KEYED))


@pytest.mark.parametrize("names", [("openai", "opnai"), ("gemini",)])
def test_a_priority_list_without_sense_stops_the_start(names: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match="PROVIDERS_PRIORITY"):
        survey(config(*names, openai=KEYED))


async def test_a_track_that_names_a_recognizer_gets_that_one_alone() -> None:
    recognizers = Recognizers(config("openai", "dummy", openai=KEYED, dummy=True))
    await recognizers.start()
    assert [one.name for one in recognizers.choices()] == ["openai", "dummy"]
    assert [one.name for one in recognizers.choices("DUMMY")] == ["dummy"]
    assert recognizers.choices("dummy")[0] in list(recognizers)
    with pytest.raises(KeyError):
        recognizers.choices("whisper")
    await recognizers.stop()


def test_a_bad_setting_of_a_recognizer_stops_the_start() -> None:
    bad = OpenAISettings(openai_api_key="sk-test", openai_realtime_url="https://example.org")
    with pytest.raises(SettingError, match="OPENAI_REALTIME_URL"):
        Recognizers(config("openai", openai=bad))


def test_a_recognizer_may_have_other_names() -> None:
    """``custom_openai`` stands in priority lists written for other gateways."""
    custom = OpenAICustomSettings(
        enable_openai_custom_provider=True, openai_custom_allowed_hosts=("asr.example",)
    )
    found = RecognizerConfig(
        choice=ChoiceSettings(providers_priority=("Custom_OpenAI", "openai")),
        rooms=(KEYED, custom),
    )
    assert survey(found).order == ("openai_custom", "openai")
    recognizers = Recognizers(found)
    assert recognizers.choices("custom_openai")[0].name == "openai_custom"
    assert recognizers.choices("custom_openai") == recognizers.choices("openai_custom")


def test_one_that_needs_more_of_the_client_takes_no_part_by_default() -> None:
    custom = OpenAICustomSettings(
        enable_openai_custom_provider=True, openai_custom_allowed_hosts=("asr.example",)
    )
    found = survey(RecognizerConfig(rooms=(KEYED, custom)))
    assert "openai_custom" not in found.order
    assert "openai_custom" in found.available


def test_what_a_recognizer_is_built_from_comes_with_its_entry() -> None:
    tables = recognizer_rooms()
    assert {"openai", "deepgram", "funasr", "embedded"} <= set(tables)
    for name, kind in tables.items():
        assert isinstance(RecognizerConfig().of(kind), kind), name
