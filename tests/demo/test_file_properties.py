"""Files a person hands over: damaged in any way they are read, or refused in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from edge.demo.replay import BadDump, DumpLine, check_dump, read_dump
from edge.demo.speech import OPUS_RATES_HZ, BadRecording, read_wav
from tests.demo.recordings import tone, write_wav

damages = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 255)), max_size=4)


@given(damages, st.integers(0, 200), st.sampled_from([8000, 44100]), st.integers(1, 3))
@example([(24, 0), (25, 0)], 200, 8000, 1)
@example([(22, 0)], 200, 8000, 1)
@example([(22, 255), (23, 255)], 200, 8000, 2)
@example([(36, 0), (41, 1)], 44, 8000, 1)
@example([(40, 255), (41, 255), (42, 255), (43, 127)], 200, 8000, 1)
def test_a_damaged_wav_header_is_read_or_refused_in_one_line(
    damage: list[tuple[int, int]], length: int, rate_hz: int, channels: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.wav")
        write_wav(path, tone(0.02, 8000).pcm[: 6 * 20], rate_hz, channels=channels)
        data = bytearray(path.read_bytes())
        for at, value in damage:
            data[at % len(data)] = value
        path.write_bytes(data[:length])
        try:
            speech = read_wav(path)
        except BadRecording as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
        else:
            assert speech.rate_hz in OPUS_RATES_HZ
            assert speech.pcm
            assert len(speech.pcm) % 2 == 0


lines = st.one_of(
    st.builds(
        DumpLine,
        timestamp=st.floats(0, 2e12),
        data=st.text(max_size=20),
        direction=st.sampled_from(["incoming", "outgoing"]),
    ).map(msgspec.json.encode),
    st.just(b""),
)


@given(st.lists(lines, max_size=8))
def test_a_dump_gives_the_incoming_messages_in_order(written: list[bytes]) -> None:
    entries = [msgspec.json.decode(line, type=DumpLine) for line in written if line]
    wanted = [entry for entry in entries if entry.direction == "incoming"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "media.jsonl")
        path.write_bytes(b"\n".join(written))
        assert list(read_dump(path)) == wanted


@given(st.lists(lines | st.binary(max_size=40), max_size=8))
@example([b'{"timestamp":1,"data":"\xff"}'])
@example([b'{"timestamp":1e400,"data":""}'])
@example([b"[" * 20_000])
@example([b'{"timestamp":1,"data":"","x":' + b"[" * 20_000])
def test_a_damaged_dump_is_refused_with_its_line(written: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "media.jsonl")
        path.write_bytes(b"\n".join(written))
        try:
            count, span_s = check_dump(path)
        except BadDump as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
        else:
            assert count > 0
            assert span_s >= 0
