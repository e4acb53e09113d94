"""Settings come from four places in a fixed order, and a wrong one says exactly what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cli.config import reference
from edge.errors import SettingError
from edge.settings import BY_NAME, TABLE, Argument, Loaded, load, parse_assignment
from tests.support.server import REPOSITORY


def file(folder: Path, text: str) -> Path:
    path = folder / "edgescribe.toml"
    path.write_text(text)
    return path


def test_each_source_wins_over_the_one_before_it(tmp_path: Path) -> None:
    path = file(tmp_path, "[server]\nport = 1\nworkers = 1\nhost = 'file'\n")
    loaded = load(
        file=path,
        environment={"PORT": "2", "EDGESCRIBE_WORKERS": "2"},
        arguments={"port": Argument("--port", "3")},
    )
    server = loaded.settings.server
    assert (server.host, server.workers, server.port) == ("file", 2, 3)
    assert server.log_level == "info"
    assert loaded.sources["host"] == f"file {path}"
    assert loaded.sources["workers"] == "environment EDGESCRIBE_WORKERS"
    assert loaded.sources["port"] == "command line --port"
    assert loaded.sources["log_level"] == "default"


def test_our_own_environment_name_wins_over_the_common_one() -> None:
    loaded = load(environment={"PORT": "1", "EDGESCRIBE_PORT": "2"})
    assert loaded.settings.server.port == 2


def test_an_empty_variable_counts_as_not_set() -> None:
    loaded = load(environment={"EDGESCRIBE_PORT": "", "PORT": "7", "OPENAI_API_KEY": ""})
    assert loaded.settings.server.port == 7
    assert loaded.sources["openai_api_key"] == "default"


def test_the_file_named_by_the_environment_is_read(tmp_path: Path) -> None:
    path = file(tmp_path, "[server]\nport = 5\n")
    assert load(environment={"EDGESCRIBE_CONFIG": str(path)}).settings.server.port == 5


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("PORT", "eighty", "a whole number from 0 to 65535"),
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("PORT", "80.5", "a whole number from 0 to 65535"),
        ("EDGESCRIBE_DRAIN_DEADLINE_S", "nan", "a number above 0 and of at most 600"),
        ("EDGESCRIBE_DRAIN_DEADLINE_S", "0", "a number above 0 and of at most 600"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("EDGESCRIBE_ACCESS_LOG", "maybe", "true or false"),
    ],
)
def test_a_bad_value_names_its_variable_the_value_and_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingError) as caught:
        load(environment={variable: value})
    assert str(caught.value).startswith(f"{variable}={value!r}")
    assert allowed in str(caught.value)


def test_a_bad_argument_and_a_bad_file_entry_name_where_they_stand(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^--port='x'"):
        load(arguments={"port": Argument("--port", "x")})
    path = file(tmp_path, "[server]\nport = '80'\n")
    with pytest.raises(SettingError, match=r"edgescribe\.toml: \[server\] port='80'"):
        load(file=path)


def test_a_secret_never_appears(tmp_path: Path) -> None:
    loaded = load(environment={"OPENAI_API_KEY": "sk-very-secret"})
    setting = BY_NAME["openai_api_key"]
    assert loaded.value(setting) == "sk-very-secret"
    assert setting.shown(loaded.value(setting)) == "***"
    with pytest.raises(SettingError) as caught:
        load(file=file(tmp_path, "[server]\nopenai_api_key = 'sk-very-secret'\n"))
    assert "sk-very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1\n", "did you mean port"),
        ("[sevrer]\nport = 1\n", "did you mean server"),
        ("port = 1\n", r"write it in \[server\]"),
        ("[lane]\nport = 1\n", r"belongs in \[server\]"),
        ("[server\n", "not TOML"),
    ],
)
def test_unknown_entries_of_the_file_stop_the_start(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        load(file=file(tmp_path, text))


def test_a_named_file_must_exist_and_be_readable(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="does not exist"):
        load(file=tmp_path / "absent.toml")
    with pytest.raises(SettingError, match="cannot read"):
        load(file=tmp_path)


def test_unknown_variables_of_ours_are_warned_about() -> None:
    loaded = load(environment={"EDGESCRIBE_PROT": "1", "EDGESCRIBE_SPEECH_DIR": "/x", "PROT": "2"})
    assert len(loaded.warnings) == 1
    assert "EDGESCRIBE_PROT" in loaded.warnings[0]
    assert "EDGESCRIBE_PORT" in loaded.warnings[0]


def test_assignments_reach_every_setting() -> None:
    name, argument = parse_assignment("drain-deadline-s=2.5")
    assert load(arguments={name: argument}).settings.server.drain_deadline_s == 2.5
    for bad in ("port", "prot=1", "=1"):
        with pytest.raises(SettingError):
            parse_assignment(bad)


def test_lists_are_comma_separated() -> None:
    loaded = load(environment={"PROVIDERS_PRIORITY": " openai, ,embedded "})
    assert loaded.settings.recognizers.providers_priority == ("openai", "embedded")


@pytest.mark.parametrize("text", ["true", "1", "Yes", "ON", "False", "0", "no", "OFF"])
def test_booleans_have_the_usual_words(text: str) -> None:
    loaded = load(environment={"EDGESCRIBE_ACCESS_LOG": text})
    assert loaded.settings.server.access_log is (text.lower() in ("true", "1", "yes", "on"))


def test_every_setting_can_be_given_as_it_is_shown() -> None:
    """What ``edgescribe config`` prints may be pasted back, for every setting."""
    for setting in TABLE:
        shown = setting.shown(setting.default)
        if shown and not setting.secret:
            assert setting.parse(shown, setting.flag) == setting.default, setting.name
        assert setting.description and setting.allowed


@given(st.sampled_from(TABLE), st.text())
def test_any_text_is_either_a_value_or_a_setting_error(setting: object, text: str) -> None:
    name = setting.name  # type: ignore[attr-defined]
    try:
        loaded = load(arguments={name: Argument("--set", text)})
    except SettingError:
        return
    assert isinstance(loaded, Loaded)


def test_the_reference_is_current() -> None:
    """Run ``make docs`` when this fails."""
    assert (REPOSITORY / "docs" / "configuration.md").read_text() == reference()
