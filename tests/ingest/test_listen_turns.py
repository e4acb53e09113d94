"""Turns keep their numbers: recognizers that drop, fail over, end nothing, or repeat themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.asr.transcript import Transcript
from edge.ingest.listen_audio import CHUNK_MS, SampleClock
from edge.ingest.listen_messages import amended
from edge.ingest.listen_turns import MOST_ENDED, MOST_OPEN, Teller, Turns
from edge.session.entries import FinalEntry
from edge.session.interface import EngineMessage, SpokenLine


def connected(request_id: str) -> EngineMessage:
    body = json.dumps({"type": "Connected", "request_id": request_id, "sequence_id": 0})
    return EngineMessage(body=body.encode(), kind="Connected", provider="flux")


def engine(event: str, turn: int, text: str, end_ms: float = 0.0) -> EngineMessage:
    body = {
        "type": "TurnInfo", "request_id": "r", "sequence_id": 77, "event": event,
        "turn_index": turn, "audio_window_start": 0.5, "audio_window_end": 1.5,
        "transcript": text, "words": [], "end_of_turn_confidence": 0.5, "new": {"a": 1e3},
    }  # fmt: skip
    return EngineMessage(
        body=json.dumps(body).encode(),
        kind=event,
        turn=turn,
        start_ms=end_ms / 2,
        end_ms=end_ms,
        is_blank=not text,
        provider="flux",
    )


def line(item: str, text: str, *, final: bool, provider: str = "flux") -> SpokenLine:
    transcript = Transcript(
        provider=provider,
        item_id=item,
        text=text,
        is_final=final,
        start_ms=100,
        end_ms=900,
        timestamp_unix_ms=0,
    )
    return SpokenLine(tag="speaker", transcript=transcript, start_ms=100, end_ms=900)


def read(messages: Iterable[bytes]) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages]


def brief(messages: Iterable[bytes]) -> list[tuple[Any, ...]]:
    """Event, turn and finished text of each."""
    return [(m.get("event"), m.get("turn_index"), m.get("text")) for m in read(messages)]


def test_a_turn_that_a_drop_interrupted_goes_on_under_its_number() -> None:
    turns = Turns()
    teller = Teller(turns)
    assert len(list(teller.engine(connected("one")))) == 1
    assert brief(teller.engine(engine("StartOfTurn", 0, "a"))) == [("StartOfTurn", 0, None)]
    list(teller.interim(line("i-0", "a", final=False)))
    assert list(teller.engine(engine("EndOfTurn", 0, "a b"))) == []
    assert brief(teller.final(line("i-0", "a b", final=True))) == [("EndOfTurn", 0, "a b")]
    assert brief(teller.engine(engine("StartOfTurn", 1, "c"))) == [("StartOfTurn", 1, None)]
    list(teller.interim(line("i-1", "c", final=False)))

    assert list(teller.engine(connected("two"))) == [], "one conversation, greeted once"
    again = read(teller.engine(engine("StartOfTurn", 0, "c", end_ms=4000)))
    assert [(m["event"], m["turn_index"]) for m in again] == [("Update", 1)]
    assert again[0]["audio_window_end"] == 4.0
    assert again[0]["new"] == {"a": 1000.0}
    list(teller.interim(line("i-1", "c", final=False)))
    list(teller.engine(engine("EndOfTurn", 0, "c d")))
    assert brief(teller.final(line("i-1", "c d", final=True))) == [("EndOfTurn", 1, "c d")]
    assert brief(teller.engine(engine("StartOfTurn", 1, "e"))) == [("StartOfTurn", 2, None)]


def test_another_recognizer_ends_the_turn_it_finds_open() -> None:
    teller = Teller(Turns())
    list(teller.engine(connected("one")))
    list(teller.engine(engine("StartOfTurn", 0, "a")))
    list(teller.interim(line("i-0", "a", final=False)))
    assert list(teller.engine(EngineMessage(body=b"", kind="Connected", provider="whisper"))) == []
    interim = line("i-0", "a b", final=False, provider="whisper")
    assert brief(teller.interim(interim)) == [("Update", 0, None)]
    final = line("i-0", "a b.", final=True, provider="whisper")
    assert brief(teller.final(final)) == [("EndOfTurn", 0, "a b.")]
    interim = line("i-1", "c", final=False, provider="whisper")
    assert brief(teller.interim(interim)) == [("StartOfTurn", 1, None)]


def test_an_end_whose_words_were_all_told_before_says_nothing_again() -> None:
    """Its final was dropped as a repetition: the turn ends without text."""
    teller = Teller(Turns())
    list(teller.engine(connected("one")))
    list(teller.engine(engine("StartOfTurn", 0, "a")))
    assert list(teller.engine(engine("EndOfTurn", 0, "a"))) == []
    told = read(teller.engine(engine("Update", 1, "")))
    assert [(m["event"], m["turn_index"], m["transcript"]) for m in told] == [
        ("EndOfTurn", 0, ""), ("Update", 1, ""),
    ]  # fmt: skip
    assert told[0]["text"] == ""


def test_words_that_overlap_the_last_turn_are_told_once() -> None:
    teller = Teller(Turns())
    list(teller.engine(connected("one")))
    list(teller.engine(engine("EndOfTurn", 0, "b c")))
    (end,) = read(teller.final(line("i-0", "c", final=True)))
    assert (end["transcript"], end["text"]) == ("c", "c")
    assert [word["word"] for word in end["words"]] == ["c"]


def test_a_turn_that_the_service_never_ended_is_ended_in_its_shape() -> None:
    """As when the connection closes: the last text is the final one."""
    teller = Teller(Turns())
    list(teller.engine(connected("one")))
    list(teller.engine(engine("StartOfTurn", 0, "a")))
    list(teller.interim(line("i-0", "a", final=False)))
    assert brief(teller.final(line("i-0", "a", final=True))) == [("EndOfTurn", 0, "a")]


def test_turns_that_end_unheard_are_told_with_their_numbers() -> None:
    turns = Turns()
    lost = Teller(turns)
    list(lost.engine(connected("one")))
    for number in range(2):
        list(lost.engine(engine("EndOfTurn", number, "a")))
        lost.keep(line(f"i-{number}", "a", final=True))
    back = Teller(turns)
    assert [m["type"] for m in read(back.greet())] == ["Connected"]
    told = [brief(back.missed(line(f"i-{number}", "a", final=True)))[0] for number in range(2)]
    assert told == [("EndOfTurn", 0, "a"), ("EndOfTurn", 1, "a")]
    assert brief(back.engine(engine("StartOfTurn", 2, "b"))) == [("StartOfTurn", 2, None)]


def entry(item: str, text: str, turn: int) -> FinalEntry:
    return FinalEntry(
        speaker="speaker",
        turn=turn,
        text=text,
        start_ms=100,
        end_ms=900,
        timestamp_unix_ms=0,
        item_id=item,
        provider="flux",
    )


def test_the_log_tells_only_what_was_not_told() -> None:
    """What this socket was sent is named by its offset; what it was not sent comes whole."""
    teller = Teller(Turns())
    list(teller.engine(connected("one")))
    list(teller.engine(engine("EndOfTurn", 0, "a")))
    list(teller.final(line("i-0", "a", final=True)))
    assert read(teller.logged(entry("i-0", "a", 5), "E", 7)) == [
        {"type": "Logged", "turn_index": 0, "epoch": "E", "offset": 7}
    ]
    told = read(teller.logged(entry("j-0", "b c", 3), "E", 8))
    assert [(m["type"], m["turn_index"]) for m in told] == [("TurnInfo", 1), ("Logged", 1)]
    assert (told[0]["event"], told[0]["text"], told[0]["transcript"]) == ("EndOfTurn", "b c", "b c")
    assert list(teller.missed(line("j-0", "b c", final=True))) == [], "the log has told it"
    assert brief(teller.engine(engine("StartOfTurn", 1, "d"))) == [("StartOfTurn", 2, None)]
    list(teller.logged(entry("j-1", "e", 4), "E", 9))
    assert brief(teller.engine(engine("Update", 1, "d f"))) == [("Update", 2, None)]
    list(teller.engine(connected("two")))
    assert brief(teller.engine(engine("StartOfTurn", 0, "d"))) == [("Update", 2, None)]
    list(teller.engine(engine("EndOfTurn", 0, "d")))
    assert brief(teller.final(line("i-1", "d", final=True))) == [("EndOfTurn", 2, "d")]
    assert brief(teller.engine(engine("StartOfTurn", 1, "g"))) == [("StartOfTurn", 4, None)]


def test_what_the_log_tells_again_keeps_its_number() -> None:
    """A page that comes back to the same worker gets the numbers that it was told before."""
    turns = Turns()
    before = Teller(turns)
    list(before.engine(connected("one")))
    for number in range(3):
        list(before.engine(engine("EndOfTurn", number, "a")))
        list(before.final(line(f"i-{number}", "a", final=True)))
    back = Teller(turns)
    told = read([*back.greet(), *back.logged(entry("i-2", "a", 9), "E", 12)])
    assert [(m["type"], m.get("turn_index")) for m in told] == [
        ("Connected", None), ("TurnInfo", 2), ("Logged", 2),
    ]  # fmt: skip


def test_what_is_remembered_is_bounded() -> None:
    turns = Turns()
    teller = Teller(turns)
    for number in range(2 * MOST_ENDED):
        list(teller.interim(line(f"open-{number}", "a", final=False, provider="x")))
        teller.keep(line(f"away-{number}", "a", final=True, provider="x"))
    assert len(turns.open) <= MOST_OPEN
    assert len(turns.ended) <= MOST_ENDED


def test_what_needs_no_change_stays_as_it_came() -> None:
    body = b'{ "type":"TurnInfo", "sequence_id" : 3,"x":1.50}'
    assert amended(body, {"sequence_id": 3}) is body
    assert amended(body, {"sequence_id": 4}) == b'{"type":"TurnInfo","sequence_id":4,"x":1.50}'


Step = tuple[str, int]


@given(st.lists(st.tuples(st.sampled_from("cdiuefwk"), st.integers(0, 3)), max_size=60))
def test_numbers_never_fall_and_messages_count(steps: list[Step]) -> None:
    """Whatever recognizers do, in whatever order: each turn ends once at most."""
    teller = Teller(Turns())
    messages: list[dict[str, Any]] = []
    turn, items = 0, 0
    for kind, pick in steps:
        item = f"i-{items - pick % 2}"
        match kind:
            case "c":
                turn = 0
                messages += read(teller.engine(connected(f"r{pick}")))
            case "d":
                other = EngineMessage(body=b"", kind="Connected", provider="x")
                messages += read(teller.engine(other))
            case "i":
                messages += read(teller.interim(line(item, "a", final=False, provider="x")))
            case "u":
                event = ("StartOfTurn", "Update", "TurnResumed", "EagerEndOfTurn")[pick]
                messages += read(teller.engine(engine(event, turn, "a" * (pick % 2))))
            case "e":
                messages += read(teller.engine(engine("EndOfTurn", turn, "a")))
                messages += read(teller.final(line(item, "a", final=True)))
                turn, items = turn + 1, items + 1
            case "f":
                messages += read(teller.final(line(item, "a", final=True, provider="x")))
                items += 1
            case "w":
                messages += read(teller.engine(engine("EndOfTurn", turn, "a" * (pick % 2))))
                turn += 1
            case _:
                teller.keep(line(item, "a", final=True, provider="x"))
                items += 1
    assert [message["sequence_id"] for message in messages] == list(range(len(messages)))
    assert all(message["turn_index"] >= 0 for message in messages if "turn_index" in message)
    assert sum(message["type"] == "Connected" for message in messages) <= 1


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 80)), max_size=60))
def test_the_clock_of_samples_never_falls_and_never_hurries(
    arrivals: list[tuple[int, int]],
) -> None:
    """Times follow one another, and are never ahead of both what was sent and what has passed."""
    clock, now_s, end, sent_ms = SampleClock(), 50.0, 0, 0
    for gap_ms, length_ms in arrivals:
        now_s += gap_ms / 1000
        at = clock.place(length_ms * 16, now_s)
        sent_ms += length_ms
        assert at >= end
        end = at + length_ms * 48
        assert end / 48 <= sent_ms + 1000 * (now_s - 50.0) + 1


def test_a_pause_counts_and_a_bad_network_does_not() -> None:
    clock = SampleClock()
    chunk = CHUNK_MS * 16
    assert clock.place(chunk, 1.0) == 0
    assert clock.place(chunk, 2.5) == CHUNK_MS * 48, "1.5 s late: the network"
    assert clock.place(chunk, 11.0) == (10_000 + CHUNK_MS - CHUNK_MS) * 48, "a pause of 10 s"
