"""Settings from any source: taken as they were meant, or refused with where and what."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.errors import SettingError
from edge.settings import HIDDEN, TABLE, Setting, load, parse_assignment

texts = st.text(alphabet=st.characters(exclude_characters="\0"), max_size=30)
environments = st.dictionaries(
    st.sampled_from([variable for setting in TABLE for variable in setting.variables]),
    texts | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["true", "no", "[]"]),
    max_size=4,
)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts | st.floats(allow_nan=False)


@given(environments)
@example({"PORT": "9" * 5000})
@example({"PORT": "1e5"})
@example({"OPENAI_TURN_DETECTION": "[" * 5000})
def test_an_environment_is_taken_or_refused_by_name(environment: dict[str, str]) -> None:
    try:
        loaded = load(environment=environment)
    except SettingError as error:
        assert any(variable in str(error) for variable in environment)
    else:
        sources = {source for source in loaded.sources.values() if source != "default"}
        assert sources <= {f"environment {variable}" for variable in environment}


@given(st.dictionaries(st.sampled_from(TABLE), scalars | st.lists(scalars, max_size=3), max_size=3))
def test_a_file_is_taken_or_refused_with_its_table_and_name(values: dict[Setting, Any]) -> None:
    toml = "".join(
        f"[{setting.section}]\n{setting.name} = {written(value)}\n"
        for setting, value in one_each_section(values).items()
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "edgescribe.toml")
        path.write_text(toml, encoding="utf-8")
        try:
            load(file=path)
        except SettingError as error:
            assert str(path) in str(error)


@settings(deadline=None)
@given(st.binary(max_size=200) | texts.map(lambda text: text.encode(errors="surrogatepass")))
@example(b"[" * 5000)
@example(b"a" + b".a" * 5000 + b"=1")
@example(b"x = " + b"[" * 5000)
@example(b"\xef\xbb\xbf[server]")
def test_any_file_is_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "edgescribe.toml")
        path.write_bytes(content)
        try:
            load(file=path)
        except SettingError as error:
            assert str(path) in str(error)


@given(texts | st.sampled_from(TABLE).flatmap(lambda s: texts.map(lambda v: f"{s.name}={v}")))
def test_an_assignment_names_a_setting_or_is_refused(text: str) -> None:
    try:
        name, argument = parse_assignment(text)
        load(arguments={name: argument})
    except SettingError as error:
        assert "--set" in str(error)


@given(st.sampled_from([s for s in TABLE if s.secret]), st.integers(10**9, 10**10))
def test_no_secret_is_ever_shown(setting: Setting, number: int) -> None:
    secret = f"sk-{number}"
    try:
        loaded = load(environment={setting.variables[0]: secret})
    except SettingError as error:
        assert secret not in str(error)
    else:
        assert setting.shown(loaded.value(setting)) == HIDDEN


def one_each_section(values: dict[Setting, Any]) -> dict[Setting, Any]:
    return dict({s.section: (s, v) for s, v in values.items()}.values())


def written(value: Any) -> str:
    """TOML of a value; a JSON text is a TOML basic string once DEL is escaped."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value).replace("\x7f", "\\u007f")
