"""Files that ``edgescribe transcribe`` reads: what they are is seen by their bytes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _native.ogg import Muxer
from _native.opus import packet_samples
from edge.demo.recording import read_recording
from edge.demo.speech import BadRecording
from tests.audio.support.packets import speech
from tests.demo.recordings import tone, write_wav
from tests.support.containers import cluster, simple_block, webm, webm_header


def ogg(packets: list[bytes], pre_skip: int = 0) -> bytes:
    muxer = Muxer(1, pre_skip=pre_skip)
    return muxer.headers() + muxer.pages(packets, last=True)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.webm", "a.dat"])
@pytest.mark.parametrize("form", [ogg, webm])
def test_opus_is_read_as_it_is_whatever_its_file_is_called(
    tmp_path: Path, name: str, form: object
) -> None:
    packets = speech(50)
    path = tmp_path / name
    path.write_bytes(form(packets))  # type: ignore[operator]
    recording = read_recording(path)
    assert list(recording.packets()) == [(960 * n, packet) for n, packet in enumerate(packets)]
    assert recording.duration_s == 1.0


def test_times_begin_before_zero_by_the_samples_to_skip(tmp_path: Path) -> None:
    path = tmp_path / "a.opus"
    path.write_bytes(ogg(speech(50), pre_skip=312))
    recording = read_recording(path)
    assert next(recording.packets())[0] == -312
    assert recording.duration_s == pytest.approx(1 - 0.0065)


def test_pauses_of_a_recorder_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    first, second = speech(2)
    path.write_bytes(
        webm_header()
        + cluster(0, simple_block(1, 0, first))
        + cluster(9000, simple_block(1, 0, second))
    )
    assert [at for at, _ in read_recording(path).packets()] == [0, 9 * 48000]


def test_wav_is_encoded_in_packets_of_20_ms(tmp_path: Path) -> None:
    recording = read_recording(write_wav(tmp_path / "a.bin", tone(0.5).pcm, 16000))
    packets = list(recording.packets())
    assert [at for at, _ in packets] == [960 * n for n in range(25)]
    assert {packet_samples(packet) for _, packet in packets} == {960}
    assert recording.duration_s == 0.5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PCM WAV file"),
        (b"ID3\x04" + bytes(100), "not a PCM WAV file"),
        (b"OggS" + bytes(70_000), "not an Ogg file with Opus"),
        (webm_header("A_VORBIS"), "not a WebM file with Opus .*A_VORBIS"),
        (webm_header(), "holds no audio"),
        (Muxer(1).headers(), "holds no audio"),
        (webm_header() + cluster(8_000_000, simple_block(1, 0, b"\x08a")), "longer than 2 hours"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_way_out(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(data)
    with pytest.raises(BadRecording, match=message) as error:
        read_recording(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match=r"missing\.ogg cannot be read: No such file"):
        read_recording(tmp_path / "missing.ogg")


@given(st.binary(max_size=200), st.sampled_from([b"OggS", b"\x1a\x45\xdf\xa3"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, head: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(head + data)
    try:
        recording = read_recording(path)
    except BadRecording:
        return
    times = [at for at, _ in recording.packets()]
    assert all(a <= b for a, b in pairwise(times))
