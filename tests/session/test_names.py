"""Session names never become paths that leave their folder."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.session.names import safe_name


@pytest.mark.parametrize("name", ["standup", "a.b-c_d", "...", "x" * 128])
def test_harmless_names_stay_as_they_are(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "会", "~x", "x" * 129, "a\n", "\0"])
def test_other_names_are_encoded(name: str) -> None:
    assert safe_name(name).startswith("~")


@given(st.text(), st.text())
def test_no_two_names_share_a_result_and_none_leaves_its_folder(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)
    path = PurePosixPath("base") / safe_name(one)
    assert path.parent == PurePosixPath("base") and path.name not in ("", ".", "..")
