"""The native way of a packet beside the long way: the same tracks, whatever comes."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _native import frame_writer, frames
from _native.envelope import scan_media
from _native.frames import PING, TEXT, Decoder
from _native.intake import MediaIntake
from edge.audio.settings import TrackSettings
from edge.audio.steps import Step
from edge.audio.track import AudioTrack
from tests.support.speech import speech_packets

KEY = b"\x12\x34\x56\x78"
PACKETS = speech_packets(60)
TAGS = ("a-1", "b-2", "ünïcode")
SETTINGS = TrackSettings(reorder_wait_ms=1000)
"""No wait ends because a test machine was busy."""


class Tag:
    """A running track as a session keeps it, with a feed that listens."""

    def __init__(self) -> None:
        self.audio = AudioTrack(SETTINGS)
        self.intake = self.audio.intake
        self.heard: list[bytes] = []
        self.audio.open_feed(16000, 0, self.heard.append).pump(1)

    def outcome(self) -> dict[str, Any]:
        self.audio.finish()
        ring = self.intake.ring
        return {
            "heard": self.heard,
            "counts": repr(self.audio.stats),
            "end": self.audio.end_ms,
            "speech": self.intake.order.speech_end,
            "clock": self.intake.order.clock,
            "steps": [ring.at(number) for number in range(ring.first, ring.count)],
        }


class Receiver:
    """What ``edge.ingest.media`` does with messages, as far as packets are concerned."""

    def __init__(self, *, native: bool) -> None:
        self.tags: dict[str, Tag] = {tag: Tag() for tag in TAGS}
        self.intake = MediaIntake(self.tags) if native else None
        self.taken = 0
        self.messages: list[bytes] = []
        self._decoder = Decoder(1 << 16)

    def read(self, data: bytes, limit: int = 8) -> None:
        while True:
            items = self._decoder.decode(data, limit, self.intake)
            if self.intake is not None:
                packets, _, _, _ = self.intake.settle()
                assert packets == self.intake.waiting
                self.taken += packets
                self.intake.waiting = 0
                for tag in self.intake.due:
                    tag.audio.play_due()
                self.intake.due.clear()
            for opcode, message in items:
                if opcode == TEXT:
                    self._message(message)
            if not self._decoder.pending:
                return
            data = b""

    def _message(self, message: bytes) -> None:
        self.messages.append(message)
        scanned = scan_media(message)
        if scanned is None:
            if message.startswith(b"restart "):
                self.tags[message[8:].decode()].audio.restart()
            return
        tag, chunk, timestamp, payload = scanned
        if tag in self.tags:
            self.tags[tag].audio.packet(chunk, timestamp, payload, time.monotonic())


def media(tag: str, chunk: int | None, timestamp: int | None, payload: bytes) -> bytes:
    body = {"tag": tag, "chunk": chunk, "timestamp": timestamp}
    kept: dict[str, Any] = {name: value for name, value in body.items() if value is not None}
    kept["payload"] = base64.b64encode(payload).decode()
    return msgspec.json.encode({"event": "media", "media": kept})


def text(message: bytes) -> bytes:
    return frame_writer.encode_masked(TEXT, message, KEY)


def steady(tag: str, count: int, first: int = 0) -> list[bytes]:
    return [
        media(tag, number, number * 960, PACKETS[number % len(PACKETS)])
        for number in range(first, first + count)
    ]


def test_a_steady_stream_is_taken_whole_but_for_what_was_read_with_its_first_packet() -> None:
    receiver = Receiver(native=True)
    receiver.read(b"".join(map(text, steady("a-1", 50))), limit=8)
    assert (receiver.taken, len(receiver.messages)) == (42, 8)
    assert receiver.tags["a-1"].audio.stats.decoded == 50
    assert len(receiver.tags["a-1"].heard) == 10


def test_what_comes_behind_a_message_waits_for_it() -> None:
    """A restart between two packets of one read takes effect between them."""
    receiver = Receiver(native=True)
    receiver.read(text(steady("a-1", 1)[0]))
    again = [media("a-1", 7, 960, PACKETS[1]), media("a-1", 8, 1920, PACKETS[2])]
    receiver.read(b"".join(map(text, [b"restart a-1", *again])))
    assert receiver.tags["a-1"].audio.stats.lost == 0
    assert receiver.messages[1:] == [b"restart a-1", *again]


@pytest.mark.parametrize(
    "message",
    [
        media("nobody", 1, 960, PACKETS[1]),
        media("a-1", None, 960, PACKETS[1]),
        media("a-1", 1, None, PACKETS[1]),
        media("a-1", 1, 960, b""),
        media("a-1", 1, 960, b"\xff\xff\xff"),
        media("a-1", 2, 1920, PACKETS[2]),
        media("a-1", 1, 961, PACKETS[1]),
        media("a-1", 1, 960, PACKETS[1]).replace(b"a-1", b"a\xff1"),
        media("a-1", 1, 960, PACKETS[1])[:-1],
        b'{"event":"ping","id":1}',
        b"",
    ],
)
def test_anything_remarkable_is_left_alone(message: bytes) -> None:
    receiver = Receiver(native=True)
    receiver.read(text(steady("a-1", 1)[0]))
    before = receiver.tags["a-1"].intake.order.end
    taken = receiver.taken
    data = frame_writer.encode_masked(TEXT, message, KEY)
    if b"\xff1" in message:
        with pytest.raises(frames.FrameError):
            receiver.read(data)
    else:
        receiver.read(data)
        assert receiver.messages[-1] == message
    assert receiver.taken == taken
    assert receiver.tags["a-1"].intake.order.end - before in (0, 960, 1920, 961)


def test_a_track_that_is_gone_gets_nothing() -> None:
    receiver = Receiver(native=True)
    receiver.read(b"".join(map(text, steady("a-1", 5))), limit=1)
    gone = receiver.tags.pop("a-1")
    receiver.read(b"".join(map(text, steady("a-1", 5, first=5))))
    assert (receiver.taken, gone.audio.stats.received) == (4, 5)


def test_long_packets_count_as_the_events_they_stand_for() -> None:
    long = speech_packets(3, frame_ms=60)
    intake = MediaIntake({"a": (tag := Tag())})
    tag.audio.packet(0, 0, long[0], 0.0)
    data = b"".join(text(media("a", n, n * 2880, long[n])) for n in (1, 2))
    assert Decoder(1 << 16).decode(data, 8, intake) == []
    assert intake.settle()[:3] == (2, sum(map(len, long[1:])), 6.0)
    assert intake.settle()[:3] == (0, 0, 0.0)


def test_it_tells_how_much_audio_is_missing_to_what_is_due() -> None:
    intake = MediaIntake({"a": (tag := Tag())})
    tag.audio.packet(0, 0, PACKETS[0], 0.0)
    tag.audio.intake.due = tag.audio.intake.ring.end + 4 * 960
    for number, rest_s in ((1, 0.06), (2, 0.04), (3, 0.02)):
        data = text(media("a", number, number * 960, PACKETS[number]))
        assert Decoder(1 << 16).decode(data, 8, intake) == []
        assert intake.settle()[3] == pytest.approx(rest_s)


strays = st.one_of(
    st.builds(
        media,
        st.sampled_from([*TAGS, "nobody"]),
        st.none() | st.integers(-5, 120) | st.just(10**17),
        st.none() | st.integers(0, 100).map(lambda number: number * 960) | st.integers(-9, 10**17),
        st.sampled_from([*PACKETS[:3], b"", b"\x08", b"\xff\xff"]),
    ),
    st.sampled_from(TAGS).map(lambda tag: b"restart " + tag.encode()),
    st.sampled_from([b"{}", b"not JSON", b'{"event":"ping"}']),
)


@given(
    st.lists(
        st.one_of(st.tuples(st.sampled_from(TAGS), st.integers(1, 12)), strays),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 9),
    st.lists(st.integers(1, 4000), max_size=8),
)
def test_both_ways_lead_to_the_same_tracks(
    script: list[tuple[str, int] | bytes], limit: int, cuts: list[int]
) -> None:
    """Steady runs of several tags, with strays of every kind between them, read in any pieces."""
    spoken = dict.fromkeys(TAGS, 0)
    messages: list[bytes] = []
    for part in script:
        if isinstance(part, bytes):
            messages.append(part)
        else:
            tag, count = part
            messages += steady(tag, count, spoken[tag])
            spoken[tag] += count
    data = b"".join(map(text, messages)) + frame_writer.encode_masked(PING, b"", KEY)
    outcomes = []
    for native in (True, False):
        receiver, rest = Receiver(native=native), data
        for cut in cuts:
            receiver.read(rest[:cut], limit)
            rest = rest[cut:]
        receiver.read(rest, limit)
        outcomes.append({name: tag.outcome() for name, tag in receiver.tags.items()})
    assert outcomes[0] == outcomes[1]


def test_a_step_that_is_gone_is_said_to_be() -> None:
    ring = Tag().intake.ring
    ring.put_other(Step(3, 960), 960, False)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="not among"):
        ring.at(1)
    ring.forget(960)
    with pytest.raises(IndexError, match="is gone"):
        ring.packets(0, 1)
