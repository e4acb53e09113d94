"""Binary audio of edge.session.v1: what a frame is, which are taken, which a final covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.ingest.session_audio import (
    HEADER_BYTES,
    MAX_JUMP,
    MAX_SEQ,
    MAX_STREAMS,
    AudioFrame,
    BadAudio,
    SpeakerAudio,
    audio_frame,
    parse_audio,
    stream_of,
    track_name,
)


def frame(seq: int, stream: int = 0) -> AudioFrame:
    return AudioFrame(stream, seq, seq * 20, b"audio")


@given(
    seq=st.integers(1, MAX_SEQ),
    ms=st.integers(0, 0xFFFFFFFF),
    stream=st.integers(0, MAX_STREAMS - 1),
    payload=st.binary(min_size=1, max_size=200),
)
def test_a_frame_arrives_as_it_was_sent(seq: int, ms: int, stream: int, payload: bytes) -> None:
    sent = audio_frame(seq, ms, payload, stream)
    assert sent[:2] == b"\x01\x00"
    assert parse_audio(sent) == AudioFrame(stream, seq, ms, payload)


@given(st.binary(max_size=40))
def test_anything_else_is_refused_and_never_crashes(data: bytes) -> None:
    try:
        taken = parse_audio(data)
    except BadAudio as problem:
        assert str(problem)
    else:
        assert data[:2] == b"\x01\x00" and taken.payload == data[HEADER_BYTES:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        audio_frame(1, 0, b""),
        b"\x02" + audio_frame(1, 0, b"x")[1:],
        b"\x01\x80" + audio_frame(1, 0, b"x")[2:],
        audio_frame(0, 0, b"x"),
        audio_frame(1, 0, b"x", MAX_STREAMS),
    ],
    ids=["empty", "no audio", "version", "flags", "number 0", "stream"],
)
def test_a_bad_header_is_named(data: bytes) -> None:
    with pytest.raises(BadAudio):
        parse_audio(data)


def test_a_frame_is_taken_once_whatever_comes_again() -> None:
    audio = SpeakerAudio()
    taken = [seq for seq in (1, 2, 3, 2, 3, 4, 1, 5) if audio.takes(frame(seq))]
    assert taken == [1, 2, 3, 4, 5]
    assert (audio.acked, audio.doubled, audio.skipped) == (5, 3, 0)


def test_frames_left_out_are_passed_over() -> None:
    audio = SpeakerAudio()
    assert audio.takes(frame(1)) and audio.takes(frame(10))
    assert (audio.acked, audio.skipped) == (10, 8)
    assert not audio.takes(frame(5))


def test_a_number_that_cannot_be_right_is_refused() -> None:
    audio = SpeakerAudio()
    audio.takes(frame(1))
    with pytest.raises(BadAudio):
        audio.takes(frame(MAX_JUMP + 2))
    assert audio.takes(frame(2))


def test_a_first_number_may_be_any() -> None:
    audio = SpeakerAudio()
    assert audio.takes(frame(3_000_000_000))


def test_a_final_covers_the_frames_that_end_with_it() -> None:
    audio = SpeakerAudio()
    for seq in range(1, 11):
        audio.takes(frame(seq))
        audio.mark(frame(seq), seq * 20.0)
    assert audio.covered(0, 100.0) == 5
    assert audio.covered(0, 119.0) == 5
    assert audio.covered(0, 5000.0) == 10
    assert audio.covered(1, 100.0) is None


def test_numbers_go_on_behind_what_another_worker_has_finished() -> None:
    audio = SpeakerAudio()
    audio.begin({0: 40, 1: 30})
    assert audio.acked == 30
    assert not audio.takes(frame(35)) and audio.takes(frame(35, stream=1))
    assert not audio.takes(frame(40)) and audio.takes(frame(41))


def test_numbers_start_anew_when_the_client_says_so() -> None:
    audio = SpeakerAudio()
    audio.takes(frame(500))
    audio.begin()
    assert audio.acked == 0 and audio.takes(frame(1))


@given(speaker=st.text(min_size=1, max_size=20), stream=st.integers(0, MAX_STREAMS - 1))
def test_a_tracks_name_tells_its_stream(speaker: str, stream: int) -> None:
    assert stream_of(speaker, track_name(speaker, stream)) == stream


@pytest.mark.parametrize("track", ["bob", "anna/0", "anna/16", "anna/x", "anna/", "anna/1/1"])
def test_another_track_is_no_stream(track: str) -> None:
    assert stream_of("anna", track) is None
