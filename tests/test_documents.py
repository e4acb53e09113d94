"""What the documents name exists: pages and headings, files, settings, commands, recognizers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.asr.registry import ENTRIES
from edge.cli.config import reference
from edge.cli.main import COMMANDS

REPOSITORY = Path(__file__).parents[1]
GENERATED = REPOSITORY / "docs" / "configuration.md"
PAGES = [
    page
    for page in (*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md")))
    if page != GENERATED
]
SETTINGS_OF_OTHERS = {
    "SSL_CERT_FILE": "OpenSSL's",
    "MEETING_ID": "a placeholder of Jitsi's",
    "EDGESCRIBE_VERSION": "the build's",
}
"""Names in capitals that are no settings of the gateway."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.is_file(), link
            assert not anchor or anchor in headings(target), link


@each_page
def test_files_and_make_targets_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:edge|_native|tests|tools|bench|docs)/[\w/.]+)`", text):
        assert (REPOSITORY / name).exists(), name
    targets = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.M):
        assert re.search(rf"^{name}:", targets, re.M), name


@each_page
def test_settings_that_are_named_in_capitals_exist(page: Path) -> None:
    known = set(re.findall(r"`([A-Z_0-9]+)`", reference())) | set(SETTINGS_OF_OTHERS)
    if page.stem == "adding-a-recognizer":
        known |= {"PARROT_API_KEY", "PARROT_URL"}
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    known |= set(re.findall(r"^([A-Z_]+) \??:?=", makefile, re.M))
    named = re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", page.read_text(encoding="utf-8"))
    assert set(named) - known == set()


@each_page
def test_commands_that_are_named_exist(page: Path) -> None:
    known = {command.name for command in COMMANDS}
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^    |bin/|\w=\S+ )edgescribe ([a-z]+)\b", text, re.M)
    assert set(named) - known == set()


def test_every_command_is_in_the_readme() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [command.name for command in COMMANDS if f"`edgescribe {command.name}" not in text] == []


def test_every_recognizer_has_its_row() -> None:
    text = (REPOSITORY / "docs" / "recognizers.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    assert {entry.name for entry in ENTRIES} <= described


def test_modules_on_the_map_exist() -> None:
    map_of_modules = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = map_of_modules.partition("## In the rooms")[2].partition("\n## ")[0]
    rows = [re.findall(r"`([\w.*]+)`", row) for row in re.findall(r"^\| (`.*?) \|", table, re.M)]
    assert len(rows) > 10
    for first, *others in rows:
        room, _, module = first.partition(".")
        is_package = room in ("_native", "dispatch", "router")
        folder = REPOSITORY / (room if is_package else f"edge/{room}")
        for name in (module, *others):
            assert [*folder.glob(f"{name}.py*"), *folder.glob(f"{name}/__init__.py")], first
