"""``edgescribe mix``: every speaker of a dump at their time, in one file."""

from __future__ import annotations

import base64
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from _native.ogg import Muxer
from _native.opus import Encoder
from edge.cli.main import main
from tests.support.containers import webm

RATE_HZ = 24000


def tone(hz: float, ms: int, *, level: float = 6000, rate_hz: int = 48000) -> bytes:
    at = np.arange(rate_hz * ms // 1000) / rate_hz
    return (level * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()


def opus(pcm: bytes) -> list[bytes]:
    encoder = Encoder(48000, 1, bitrate_bps=64000)
    return [encoder.encode(pcm[at : at + 1920]) for at in range(0, len(pcm), 1920)]


class Dump:
    """A recording in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.at_ms = 1_700_000_000_000

    def message(self, event: dict[str, object], direction: str = "incoming") -> None:
        line = {"timestamp": self.at_ms, "direction": direction, "data": json.dumps(event)}
        self.lines.append(json.dumps(line))
        self.at_ms += 1

    def media(
        self, tag: str, payloads: list[bytes], *, at: int = 0, chunk: int = 0, step: int = 960
    ) -> None:
        for number, payload in enumerate(payloads):
            self.packet(tag, payload, at + step * number, chunk + number)

    def packet(self, tag: str, payload: bytes, timestamp: int, chunk: int) -> None:
        encoded = base64.b64encode(payload).decode()
        body = {"tag": tag, "chunk": str(chunk), "timestamp": str(timestamp), "payload": encoded}
        self.message({"event": "media", "media": body})

    def start(self, tag: str, encoding: str, **members: int) -> None:
        form = {"encoding": encoding, **members}
        self.message({"event": "start", "start": {"tag": tag, "mediaFormat": form}})

    def mixed(self, out: Path, *options: str) -> np.ndarray:
        self.path.write_text("\n".join(self.lines) + "\n")
        assert main(["mix", str(self.path), str(out), *options]) == 0
        with wave.open(str(out), "rb") as file:
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.astype(float)


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    return Dump(tmp_path / "media.jsonl")


def loudness(samples: np.ndarray, hz: float, from_ms: int, to_ms: int, rate_hz: int) -> float:
    """Amplitude of one frequency in a part of a recording."""
    part = samples[rate_hz * from_ms // 1000 : rate_hz * to_ms // 1000]
    at = np.arange(len(part)) / rate_hz
    return 2 * abs(np.mean(part * np.exp(-2j * np.pi * hz * at)))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_speakers_are_heard_at_their_times_and_together(
    dump: Dump, tmp_path: Path, rate_hz: int
) -> None:
    start = 777 * 48
    dump.media("a", opus(tone(500, 400)), at=start, chunk=100)
    dump.media("b", opus(tone(1500, 400)), at=start + 200 * 48, chunk=65_530)
    dump.media("a", opus(tone(500, 200)), at=start + 1000 * 48, chunk=120)
    samples = dump.mixed(tmp_path / "out.wav", "--rate", str(rate_hz))
    assert len(samples) == rate_hz * 1200 // 1000
    for hz, spans in ((500, [(50, 390), (1050, 1190)]), (1500, [(250, 590)])):
        for from_ms, to_ms in spans:
            assert loudness(samples, hz, from_ms, to_ms, rate_hz) == pytest.approx(6000, rel=0.1)
    assert np.abs(samples[rate_hz * 610 // 1000 : rate_hz * 990 // 1000]).max() == 0
    assert loudness(samples, 1500, 10, 190, rate_hz) < 200


def test_sums_are_clipped_not_wrapped(dump: Dump, tmp_path: Path) -> None:
    for number in range(6):
        dump.media(f"tag-{number}", opus(tone(440, 200, level=20_000)))
    samples = dump.mixed(tmp_path / "out.wav")
    assert samples.max() == 32767
    assert samples.min() == -32768
    assert loudness(samples, 440, 50, 190, RATE_HZ) > 32_000


def test_each_tag_has_its_own_decoder_and_its_losses_are_bridged(
    dump: Dump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low, high = opus(tone(300, 600)), opus(tone(2000, 600))
    for number in range(30):
        if number not in (12, 13):
            dump.packet("low", low[number], 960 * number, number)
        dump.packet("high", high[number], 960 * number, number)
    samples = dump.mixed(tmp_path / "out.wav")
    assert loudness(samples, 300, 242, 278, RATE_HZ) > 3000
    assert loudness(samples, 2000, 50, 590, RATE_HZ) == pytest.approx(6000, rel=0.1)
    assert "2 lost ones bridged" in capsys.readouterr().out


def test_late_packets_are_put_in_their_place(dump: Dump, tmp_path: Path) -> None:
    packets = opus(tone(500, 600))
    order = [*range(10), 11, 12, 10, *range(13, 30)]
    for number in order:
        dump.packet("a", packets[number], 960 * number, number)
    straight = Dump(tmp_path / "straight.jsonl")
    straight.media("a", packets)
    assert (dump.mixed(tmp_path / "a.wav") == straight.mixed(tmp_path / "b.wav")).all()


def test_every_form_of_audio_is_mixed(dump: Dump, tmp_path: Path) -> None:
    dump.start("pcm", "l16-be", sampleRate=16000, channels=2)
    pcm = np.frombuffer(tone(700, 400, rate_hz=16000), "<i2").repeat(2).astype(">i2").tobytes()
    dump.media("pcm", [pcm[at : at + 1280] for at in range(0, len(pcm), 1280)])
    muxer = Muxer(5)
    pages = muxer.headers() + muxer.pages(opus(tone(1100, 400)))
    dump.start("ogg", "ogg")
    dump.media("ogg", [pages[at : at + 300] for at in range(0, len(pages), 300)], step=0)
    dump.start("webm", "webm")
    dump.packet("webm", webm(opus(tone(1900, 400))), 0, 0)
    samples = dump.mixed(tmp_path / "out.wav")
    for hz in (700, 1100, 1900):
        assert loudness(samples, hz, 50, 390, RATE_HZ) == pytest.approx(6000, rel=0.1)


def test_a_connection_whose_tags_announce_nothing_is_mixed_as_told(
    dump: Dump, tmp_path: Path
) -> None:
    dump.packet("a", webm(opus(tone(900, 300))), 0, 0)
    samples = dump.mixed(tmp_path / "out.wav", "--encoding", "webm")
    assert loudness(samples, 900, 50, 290, RATE_HZ) == pytest.approx(6000, rel=0.1)


def test_a_client_that_came_back_counting_from_zero_is_heard_after_what_was_before(
    dump: Dump, tmp_path: Path
) -> None:
    hello = {"event": "info", "application": "jitsi-videobridge"}
    dump.message(hello)
    dump.media("a", opus(tone(500, 1000)), at=48_000 * 30)
    dump.at_ms += 4000
    dump.message(hello)
    dump.media("a", opus(tone(800, 1000)), at=0)
    samples = dump.mixed(tmp_path / "out.wav")
    assert len(samples) / RATE_HZ == pytest.approx(6.0, abs=0.2)
    assert loudness(samples, 500, 50, 950, RATE_HZ) == pytest.approx(6000, rel=0.1)
    assert loudness(samples, 800, len(samples) * 1000 // RATE_HZ - 900, 99_999, RATE_HZ) > 5000


def test_what_cannot_be_mixed_is_named_and_the_rest_is_heard(
    dump: Dump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump.start("bad", "l16", sampleRate=44_000)
    dump.media("bad", [bytes(640)] * 5)
    dump.start("text", "ogg")
    dump.media("text", [b"no ogg" * 5000] * 5)
    dump.message({"event": "media", "media": {"tag": "a", "payload": 5}})
    dump.media("a", opus(tone(500, 300)))
    dump.packet("a", opus(tone(500, 20))[0], 48_000 * 3600 * 40, 15)
    dump.message({"event": "media", "media": {}}, direction="outgoing")
    samples = dump.mixed(tmp_path / "out.wav")
    assert loudness(samples, 500, 50, 290, RATE_HZ) == pytest.approx(6000, rel=0.1)
    said = capsys.readouterr()
    assert "bad is left out from there on: l16 at 44000 Hz" in said.err
    assert "text is left out from there on: no Ogg page" in said.err
    assert "1 messages could not be read" in said.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no audio"),
        ("{}", "line 1: not a dump's line"),
        ('{"timestamp":1,"direction":"incoming","data":"{}"}\nnonsense', "line 2: not a dump's"),
        ('{"timestamp":1,"direction":"incoming","data":"x"}', "holds no audio"),
    ],
)
def test_a_file_that_is_no_dump_is_refused(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "media.jsonl"
    path.write_text(text)
    assert main(["mix", str(path), str(tmp_path / "out.wav")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.wav").exists()


def test_a_place_that_cannot_be_written_is_named(
    dump: Dump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump.media("a", opus(tone(500, 40)))
    dump.path.write_text("\n".join(dump.lines))
    out = tmp_path / "nowhere" / "out.wav"
    assert main(["mix", str(dump.path), str(out)]) == 1
    assert f"{out} cannot be written: No such file" in capsys.readouterr().err
    assert main(["mix", str(tmp_path / "missing"), str(out)]) == 1
    assert "missing cannot be read" in capsys.readouterr().err
