"""What the image installs is pinned: every dependency, at a version that fits, by its hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def entries() -> list[str]:
    """The lock's requirements, each with its hashes."""
    text = (REPOSITORY / "requirements.lock").read_text()
    return [entry for entry in re.split(r"\n(?=\S)", text.strip()) if entry[0] not in "#-"]


def test_every_dependency_is_locked_at_a_version_that_fits(entries: list[str]) -> None:
    """``make lock`` writes it again after a change of pyproject.toml."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    locked: dict[str, list[str]] = {}
    for entry in entries:
        name, version = re.match(r"([\w.-]+)==([\w.+!-]+)", entry).groups()  # type: ignore[union-attr]
        locked.setdefault(name, []).append(version)
    for text in (*project["dependencies"], *(each for extra in extras for each in extra)):
        wanted = Requirement(text)
        versions = locked.get(wanted.name.lower(), [])
        assert versions, f"{wanted.name} is not in requirements.lock: make lock"
        for version in versions:
            assert wanted.specifier.contains(version, prereleases=True), f"{text}: make lock"


def test_every_version_has_hashes_and_nothing_says_where_it_came_from(entries: list[str]) -> None:
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
        assert "://" not in entry and "--index" not in entry and "@" not in entry
