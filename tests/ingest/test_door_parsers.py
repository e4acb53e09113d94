"""What the doors read, whatever is sent: right values for what is right, named faults else."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import struct
from typing import Any
from urllib.parse import urlencode

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.ingest.deepgram_query import BadQuery, DeepgramQuery, parse_deepgram_query
from edge.ingest.g711 import from_alaw, from_mulaw
from edge.ingest.realtime_messages import Append, BadEvent, SessionUpdate, decode_event
from edge.ingest.realtime_session import Terms
from edge.ingest.voice import StreamClock
from edge.ingest.wav_header import BadWav, SampleForm, WavHeader, read_header
from edge.ingest.words import spread

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(("codec", "expand"), [("pcm_mulaw", from_mulaw), ("pcm_alaw", from_alaw)])
def test_g711_is_what_a_codec_makes_of_it(codec: str, expand: Any) -> None:
    """All 256 codes, by FFmpeg."""
    codes = bytes(range(256))
    decoder = av.CodecContext.create(codec, "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"  # type: ignore[attr-defined]
    frames = decoder.decode(av.Packet(codes))  # type: ignore[attr-defined]
    known = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    assert np.array_equal(np.frombuffer(expand(codes), "<i2"), known)


def wav_bytes(
    form: SampleForm, data: bytes, *, size: int | None, extra: bytes, wide: bool
) -> bytes:
    code = {"pcm16": 1, "alaw": 6, "mulaw": 7}[form.encoding]
    bits = 16 if form.encoding == "pcm16" else 8
    rest = (form.channels, form.rate_hz, 0, form.frame_bytes, bits)
    chunk = struct.pack("<HHIIHH", 0xFFFE if wide else code, *rest)
    if wide:
        chunk += struct.pack("<HHIH", 22, bits, 0, code) + bytes(14)
    odd = bytes(len(extra) % 2)
    return b"".join((
        b"RIFF\0\0\0\0WAVE",
        b"LIST", len(extra).to_bytes(4, "little"), extra, odd,
        b"fmt ", len(chunk).to_bytes(4, "little"), chunk,
        b"data", (len(data) if size is None else size).to_bytes(4, "little"), data,
    ))  # fmt: skip


forms = st.builds(
    SampleForm,
    st.sampled_from(["pcm16", "mulaw", "alaw"]),
    st.sampled_from([8000, 16000, 44100, 48000]),
    st.integers(1, 8),
)


@given(forms, st.binary(min_size=1, max_size=40), st.binary(max_size=20), st.booleans(), st.data())
def test_a_wav_header_is_read_from_any_prefix_that_holds_it(
    form: SampleForm, samples: bytes, extra: bytes, wide: bool, data: st.DataObject
) -> None:
    file = wav_bytes(form, samples, size=None, extra=extra, wide=wide)
    found = WavHeader(form, len(file) - len(samples), len(samples))
    assert read_header(file) == found
    cut = data.draw(st.integers(0, len(file)))
    assert read_header(file[:cut]) == (found if cut >= found.offset else None)
    for open_end in (0, 0xFFFFFFFF):
        endless = wav_bytes(form, samples, size=open_end, extra=extra, wide=wide)
        header = read_header(endless)
        assert header is not None and header.size is None


@given(st.binary(max_size=80))
def test_what_is_no_wav_is_said_to_be_none(data: bytes) -> None:
    for start in (b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt "):
        try:
            header = read_header(start + data)
        except BadWav as problem:
            assert str(problem)
        else:
            assert header is None or header.offset <= len(start + data)


@given(st.text(max_size=200))
@example("encoding=linear16&sample_rate=" + "9" * 30)
@example("&".join(["a=1"] * 300))
@example("sample_rate=\u0663\u0664")
def test_any_query_is_a_query_of_deepgrams_or_refused(query: str) -> None:
    try:
        found = parse_deepgram_query(query)
    except BadQuery as problem:
        assert str(problem)
    else:
        assert isinstance(found, DeepgramQuery)
        assert len(found.warnings) <= 32


names = st.sampled_from([
    "encoding", "sample_rate", "channels", "multichannel", "interim_results", "utterance_end_ms",
    "redact", "diarize", "endpointing", "keyterm", "session", "speaker",
])  # fmt: skip
values = st.sampled_from(["linear16", "mulaw", "opus", "16000", "2", "true", "false", "", "300"])


@given(st.dictionaries(names, values | st.text(max_size=5)))
def test_a_query_that_is_taken_does_what_it_says(given_values: dict[str, str]) -> None:
    try:
        found = parse_deepgram_query(urlencode(given_values))
    except BadQuery:
        return
    assert found.interims == (given_values.get("interim_results", "").lower() == "true")
    assert given_values.get("redact", "").lower() in ("", "false", "0", "1")
    if found.samples is not None:
        assert found.samples.rate_hz == int(given_values["sample_rate"])
        assert found.samples.problem is None
    if given_values.get("encoding"):
        assert found.samples or found.packets or found.container


@given(json_values | st.fixed_dictionaries({"type": st.sampled_from([
    "session.update", "transcription_session.update", "input_audio_buffer.append",
    "input_audio_buffer.commit", "conversation.item.create",
])}, optional={"session": json_values, "audio": json_values, "event_id": json_values}))  # fmt: skip
def test_any_json_is_an_event_or_a_named_fault(value: Any) -> None:
    try:
        decode_event(json.dumps(value).encode())
    except BadEvent as problem:
        details = problem.details
        assert details.message and details.code and details.type == "invalid_request_error"
        if details.event_id is not None:
            assert details.event_id == value["event_id"]


@given(st.binary(max_size=100))
def test_any_bytes_are_an_event_or_a_named_fault(data: bytes) -> None:
    with contextlib.suppress(BadEvent):
        decode_event(data)


@given(st.binary(max_size=100))
def test_audio_comes_as_it_was_encoded(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    event = decode_event(json.dumps({"type": "input_audio_buffer.append", "audio": text}).encode())
    assert isinstance(event, Append) and event.audio == data


def test_what_an_update_does_not_name_stays_as_it_was() -> None:
    def updated(terms: Terms, **source: Any) -> Terms:
        session = {"type": "transcription", "audio": {"input": source}}
        event = decode_event(json.dumps({"type": "session.update", "session": session}).encode())
        assert isinstance(event, SessionUpdate)
        return terms.updated(event.session)

    terms = updated(Terms(), transcription={"model": "whisper-1", "language": "en"})
    terms = updated(terms, turn_detection=None)
    terms = updated(terms, format={"type": "audio/pcmu"})
    assert terms == Terms(format="audio/pcmu", model="whisper-1", language="en", detection=None)
    assert updated(terms, turn_detection={"type": "semantic_vad"}).detection == "semantic_vad"


@given(st.text(max_size=60), st.floats(0, 1e5), st.floats(0, 100))
def test_words_share_the_time_of_their_text(text: str, start_s: float, length_s: float) -> None:
    found = spread(text, start_s, start_s + length_s)
    assert [word for word, _, _ in found] == text.split()
    times = [each for _, begin, end in found for each in (begin, end)]
    assert times == sorted(times)
    if found:
        assert math.isclose(times[0], start_s, abs_tol=0.001)
        assert math.isclose(times[-1], start_s + length_s, abs_tol=0.001)


@given(st.lists(st.tuples(st.integers(1, 4000), st.sampled_from([0.0, 0.1, 5.0])), max_size=40))
def test_pauses_do_not_count_as_audio_that_was_sent(sent: list[tuple[int, float]]) -> None:
    """However a sender pauses, a time of the media clock leads back to its sample."""
    clock, now_s, samples = StreamClock(8000), 100.0, 0
    for count, pause_s in sent:
        now_s += count / 8000 + pause_s
        at_ms = clock.place(count, now_s) / 48
        assert math.isclose(clock.stream_ms(at_ms), samples / 8, abs_tol=0.05)
        assert math.isclose(clock.stream_ms(at_ms + count / 8), (samples + count) / 8, abs_tol=0.05)
        samples += count
