"""Messages of Deepgram and Flux, well-formed and not, and what a result says by speaker."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.asr import flux_events
from edge.asr.deepgram_events import Metadata, Results, as_error, decode, language, runs
from edge.asr.deepgram_stream import OggClock
from edge.errors import RecognizerBusy, RecognizerClosed, RecognizerError, RecognizerRefused

seconds = st.floats(0, 1e6, allow_nan=False)
words = st.fixed_dictionaries(
    {"word": st.sampled_from(["a", "b", "c"]), "start": seconds, "end": seconds},
    optional={
        "confidence": st.none() | st.floats(0, 1),
        "punctuated_word": st.none() | st.sampled_from(["A.", "B,"]),
        "speaker": st.none() | st.integers(0, 3),
        "language": st.text(max_size=5),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def results(said: list[dict[str, Any]], transcript: str) -> Results:
    alternative = {"transcript": transcript, "confidence": 0.5, "words": said, "languages": ["en"]}
    message = {"type": "Results", "start": 1.0, "duration": 2.0, "is_final": True}
    message["channel"] = {"alternatives": [alternative]}
    decoded = decode(json.dumps(message).encode())
    assert isinstance(decoded, Results)
    return decoded


@given(st.lists(words, max_size=12))
def test_a_result_is_cut_where_the_speaker_changes_and_nowhere_else(
    said: list[dict[str, Any]],
) -> None:
    transcript = " ".join(word.get("punctuated_word") or word["word"] for word in said)
    result = results(said, transcript)
    found = runs(result)
    assert " ".join(run.text for run in found) == transcript
    assert language(result) == "en"
    if any(word.get("speaker") is not None for word in said):
        assert all(run.speaker is not None for run in found)
        assert all(one.speaker != next_one.speaker for one, next_one in pairwise(found))
        assert found[0].start_ms == said[0]["start"] * 1000
        assert found[-1].end_ms == said[-1]["end"] * 1000
        assert all(run.confidence is None or 0 <= run.confidence <= 1 for run in found)
    else:
        assert [run.speaker for run in found] == [None] * bool(said)


def test_a_result_without_words_spans_its_audio() -> None:
    (run,) = runs(results([], "hello"))
    assert (run.start_ms, run.end_ms) == (1000, 3000)
    assert not runs(results([], "  "))
    assert language(Results(0, 1, channel=results([], "").channel)) == "en"


@given(st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
def test_no_message_does_more_than_not_decode(message: bytes) -> None:
    for decoder in (decode, flux_events.decode):
        try:
            decoder(message)
        except msgspec.DecodeError:
            continue


@given(st.sampled_from(["Results", "Error", "Metadata", "TurnInfo", "Connected"]), anything)
def test_known_types_in_unknown_forms_do_no_more_either(kind: str, members: object) -> None:
    body = members if isinstance(members, dict) else {"start": members}
    message = json.dumps({**body, "type": kind}).encode()
    for decoder in (decode, flux_events.decode):
        try:
            decoder(message)
        except msgspec.DecodeError:
            continue


def test_types_that_mean_nothing_are_none() -> None:
    assert decode(b'{"type":"UtteranceEnd","last_word_end":1.0}') is None
    assert isinstance(decode(b'{"type":"Metadata","duration":1.5}'), Metadata)
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"type":"Results"}')


@pytest.mark.parametrize(
    ("code", "description", "kind"),
    [
        ("INVALID_AUTH", "wrong key", RecognizerRefused),
        ("INSUFFICIENT_CREDITS", None, RecognizerRefused),
        (None, "Quota exceeded", RecognizerRefused),
        ("RATE_LIMIT", "slow down", RecognizerBusy),
        ("INTERNAL_SERVER_ERROR", "authentication backend", RecognizerClosed),
        (None, None, RecognizerClosed),
    ],
)
def test_errors_are_told_apart_by_whether_another_try_may_help(
    code: str | None, description: str | None, kind: type[RecognizerError]
) -> None:
    error = as_error("Deepgram", code, description)
    assert type(error) is kind
    assert str(error).startswith("Deepgram: ")


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_the_clock_of_ogg_takes_any_bytes(pieces: list[bytes]) -> None:
    clock = OggClock()
    for piece in pieces:
        assert clock.advance_ms(piece) >= 0
        assert clock.advance_ms(b"OggS" + piece) >= 0
