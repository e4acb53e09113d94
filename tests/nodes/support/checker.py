"""What must hold of a session's log and of what its clients were shown, whatever happened."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from edge.session.store.interface import Entry, Head, SessionStore
from tests.asr.support.tones import WORDS
from tests.nodes.support.clients import Client, Speaker

TOLD_WITHIN_S = 60.0


async def log_of(store: SessionStore, session: str) -> tuple[Head, list[Entry]]:
    """All of a session's log."""
    head = await store.head(session)
    assert head is not None, f"there is no session {session}"
    entries: list[Entry] = []
    after = head.tail - 1
    while (page := await store.read(session, after)) is not None and page.entries:
        entries.extend(page.entries)
        after = page.entries[-1].offset
    return head, entries


def log_faults(head: Head, entries: list[Entry]) -> list[str]:
    """Offsets are dense; who took a track over writes after those who had it before."""
    faults = []
    offsets = [entry.offset for entry in entries]
    if offsets != list(range(head.tail, head.head + 1)):
        faults.append(f"offsets are not dense from {head.tail} to {head.head}")
    fences: dict[str, int] = {}
    for entry in entries:
        if not entry.track:
            continue
        if entry.fence < fences.get(entry.track, 0):
            faults.append(f"entry {entry.offset} of {entry.track} has a fence of the past")
        fences[entry.track] = entry.fence
    return faults


def client_faults(client: Client, head: Head, entries: list[Entry]) -> list[str]:
    """What a client was shown of this history is in it, and nothing else was there."""
    faults = list(client.faults)
    by_offset = {entry.offset: entry for entry in entries}
    for (epoch, offset), shown in client.seen.items():
        if epoch != head.epoch:
            continue
        entry = by_offset.get(offset)
        if entry is None:
            faults.append(f"{client.name} was shown {offset}, which is gone: {shown}")
        elif shown["k"] == "final" and text_of(entry) != shown["data"]["text"]:
            faults.append(f"{client.name} was shown another {offset}: {shown}")
    epochs = [welcome.epoch for welcome in client.welcomes]
    for (before, after), welcome in zip(
        itertools.pairwise(epochs), client.welcomes[1:], strict=True
    ):
        if before != after and welcome.recovered:
            faults.append(f"{client.name} was told that {after} goes on where {before} ended")
    return faults


def text_of(entry: Entry) -> str:
    body: dict[str, Any] = json.loads(entry.body)
    return str(body["text"])


def words_of(speaker: Speaker, entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """A speaker's finals, and their words.

    A word that a worker's end cut in two may be told by both halves: next to each other, the same
    word counts once.
    """
    finals = [e for e in entries if e.kind == "final" and e.track == speaker.name]
    words = " ".join(map(text_of, finals)).split()
    return finals, [word for word, _ in itertools.groupby(words)]


def words_lost(speaker: Speaker, entries: Iterable[Entry]) -> list[str]:
    """Every word that was said is in the log, in order; else the first that is not."""
    finals, heard = words_of(speaker, entries)
    said = [WORDS[number % len(WORDS)] for number in range(speaker.words)]
    at = 0
    for word in heard:
        if at < len(said) and word == said[at]:
            at += 1
    if at == len(said):
        return []
    near = "; ".join(f"{entry.offset}/{entry.fence} {text_of(entry)}" for entry in finals[-6:])
    return [f"{speaker.name}: {len(said)} words said, lost from word {at}; the last told: {near}"]


def words_doubled(speaker: Speaker, entries: Iterable[Entry]) -> int:
    """How many words were told again."""
    return max(0, len(words_of(speaker, entries)[1]) - speaker.words)


async def until_told(
    store: SessionStore, session: str, speakers: Sequence[Speaker], clients: Sequence[Client]
) -> list[str]:
    """Let the speakers end, and wait until every word is in the log and every client knows.

    What is still missing after a while is returned.
    """
    for speaker in speakers:
        speaker.is_silent = True
    until_s = time.monotonic() + TOLD_WITHIN_S
    while True:
        head, entries = await log_of(store, session)
        faults = [fault for speaker in speakers for fault in words_lost(speaker, entries)]
        faults += [
            f"{client.name} has not come up with the log"
            for client in clients
            if client.offset != head.head
        ]
        if not faults or time.monotonic() > until_s:
            return faults
        await asyncio.sleep(0.3)
