"""Input that is wrong in every way: the documented answer, no traceback, and life goes on."""

from __future__ import annotations

import json
import random
import socket

import pytest

from tests.hostile.neighbour import UPGRADE
from tests.hostile.support import Crowd, Effort, metric, no_sessions, rss_mb
from tests.ingest.support.media import media_event, start_event
from tests.support.server import Server, wait_until
from tests.support.speech import speech_packets

BAD_EVENTS = 'edgescribe_refused_events_total{reason="bad"}'
TARGET = b"/transcribe?sendBack=true&info=false"
BAD_URL = b"HTTP/1.1 400 Bad Request\r\n\r\nBad URL"
NO_OUTPUT = b"HTTP/1.1 400 Bad Request\r\n\r\nNo transcription output method specified"


def upgrade(target: bytes, *headers: bytes) -> bytes:
    request = UPGRADE.replace(TARGET, target)
    return request[:-2] + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


REQUESTS: dict[str, tuple[bytes, bytes]] = {
    "another path": (upgrade(b"/"), BAD_URL),
    "dots": (upgrade(b"/transcribe/../../etc/passwd"), BAD_URL),
    "escaped dots": (upgrade(b"/%2e%2e/transcribe%2f"), BAD_URL),
    "escaped zero": (upgrade(b"/transcribe%00"), BAD_URL),
    "bad escapes": (upgrade(b"/%zz%/%ff%fe"), BAD_URL),
    "a long path": (upgrade(b"/" + b"a/" * 3500), BAD_URL),
    "another case": (upgrade(b"/TRANSCRIBE?sendBack=true"), BAD_URL),
    "no query": (upgrade(b"/transcribe?"), NO_OUTPUT),
    "separators": (upgrade(b"/transcribe?" + b"&" * 5000), NO_OUTPUT),
    "equal signs": (upgrade(b"/transcribe?=&==&=" + b"=" * 1000), NO_OUTPUT),
    "many members": (upgrade(b"/transcribe?" + b"a=b&" * 1800), NO_OUTPUT),
    "bytes that are no text": (upgrade(b"/transcribe?sendBack=%ff%fe%00"), NO_OUTPUT),
    "an encoding": (upgrade(b"/transcribe?sendBack=true&encoding=../x"), b"HTTP/1.1 400 "),
    "raw bytes in the path": (upgrade(b"/transcribe\xff\xfe"), b"HTTP/1.1 400 "),
    "a header flood": (
        upgrade(TARGET, *(b"X-%d: y" % n for n in range(2000))), b"HTTP/1.1 413 ",
    ),
    "a header without end": (upgrade(TARGET, b"X: " + b"y" * 100_000), b"HTTP/1.1 413 "),
    "a header without colon": (upgrade(TARGET, b"no colon"), b"HTTP/1.1 400 "),
    "an empty header name": (upgrade(TARGET, b": x"), b"HTTP/1.1 "),
    "a key of the wrong length": (
        UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"YWJj"), b"HTTP/1.1 400 ",
    ),
    "no key": (
        UPGRADE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), b"HTTP/1.1 400 ",
    ),
    "two keys": (upgrade(TARGET, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), b"HTTP/1.1 400 "),
    "two lengths": (upgrade(TARGET, b"Content-Length: 1", b"Content-Length: 2"), b"HTTP/1.1 400 "),
    "a negative length": (upgrade(TARGET, b"Content-Length: -1"), b"HTTP/1.1 400 "),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HTTP/1.1 400 "),
    "only line ends": (b"\r\n" * 50, b"HTTP/1.1 400 "),
}  # fmt: skip


def first_answer(crowd: Crowd, request: bytes) -> bytes:
    """What comes back until the server closes or falls silent."""
    connection = crowd.connect()
    connection.sendall(request)
    connection.settimeout(1.0)
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except (TimeoutError, ConnectionError):
        pass
    finally:
        connection.close()
    return received


def test_bad_requests_get_their_answer(server: Server, crowd: Crowd) -> None:
    answers = {name: first_answer(crowd, request) for name, (request, _) in REQUESTS.items()}
    wrong = {
        name: answers[name][:200]
        for name, (_, expected) in REQUESTS.items()
        if not (
            answers[name] == expected if b"\r\n\r\n" in expected else expected in answers[name][:20]
        )
    }
    assert not wrong
    assert not any(b"Traceback" in answer or b".py" in answer for answer in answers.values())


def test_random_requests_cost_nothing(server: Server, crowd: Crowd, effort: Effort) -> None:
    rng = random.Random(6455)
    (worker,) = server.workers()
    before_mb = rss_mb(worker)
    for _ in range(effort.noise):
        request = bytearray(upgrade(TARGET, b"X-Y: z"))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(request))
            if rng.random() < 0.5:
                request[at] = rng.randrange(256)
            else:
                del request[at : at + rng.randint(1, 9)]
        connection = crowd.connect()
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        connection.close()
    crowd.join().ping()
    crowd.leave()
    no_sessions(server)
    assert server.workers() == [worker]
    assert rss_mb(worker) - before_mb < 20


BIG = b"A" * 60_000
EVENTS: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"\x00\xff",
    "deep": b"[" * 60_000,
    "deep objects": b'{"event":' * 7_000,
    "a huge number": b'{"event":"media","media":{"tag":"a","chunk":' + b"9" * 60_000 + b"}}",
    "a huge ping id": b'{"event":"ping","id":1e999}',
    "a huge tag": b'{"event":"media","media":{"tag":"' + BIG + b'","payload":"AAEC"}}',
    "a tag of nothing": b'{"event":"media","media":{"tag":"","payload":"AAEC"}}',
    "a tag of zeros": b'{"event":"media","media":{"tag":"\\u0000","payload":"AAEC"}}',
    "a lone surrogate": b'{"event":"media","media":{"tag":"\\ud800","payload":"AAEC"}}',
    "no base64": b'{"event":"media","media":{"tag":"a","chunk":1,"payload":"!!!!"}}',
    "base64 cut": b'{"event":"media","media":{"tag":"a","chunk":1,"payload":"A"}}',
    "no payload": b'{"event":"media","media":{"tag":"a","chunk":1,"payload":""}}',
    "a payload of null": b'{"event":"media","media":{"tag":"a","chunk":1,"payload":null}}',
    "huge Opus": b'{"event":"media","media":{"tag":"a","chunk":1,"payload":"' + BIG + b'"}}',
    "far numbers": (
        b'{"event":"media","media":{"tag":"a","chunk":"9223372036854775807",'
        b'"timestamp":"-9223372036854775808","payload":"AAEC"}}'
    ),
    "an unknown encoding": start_event("a", encoding="mp3").encode(),
    "an impossible rate": start_event("a", encoding="l16", sampleRate=10**30).encode(),
    "no channels": start_event("a", channels=0).encode(),
    "a format of nothing": b'{"event":"start","start":{"tag":"a","mediaFormat":null}}',
}


@pytest.mark.parametrize("frame", ["text", "binary"])
def test_bad_events_touch_nobody_else(
    server: Server, crowd: Crowd, effort: Effort, frame: str
) -> None:
    rng = random.Random(frame)
    peer = crowd.join("sendBack=true&errors=true&info=false")
    for event in EVENTS.values():
        if frame == "binary" or event.isascii():
            (peer.send_binary if frame == "binary" else peer.send)(event)
    packets = speech_packets(50)
    for number in range(effort.noise):
        packet = bytearray(rng.choice(packets))
        packet[rng.randrange(len(packet))] = rng.randrange(256)
        noise = bytes(packet) if number % 2 else rng.randbytes(rng.randint(1, 1500))
        peer.send(media_event("noisy", number, noise).encode())
    peer.ping(77)
    codes = {json.loads(message).get("code") for message in peer.messages if b"error" in message}
    assert codes == {"bad_format"}
    wait_until(lambda: metric(server, BAD_EVENTS) >= 10, BAD_EVENTS)
    for number, packet in enumerate(packets):
        peer.send(media_event("well-behaved", number, packet).encode())
    peer.ping(78)
    assert json.loads(server.get("/status").body)["tracks"] >= 2
    crowd.leave()
    no_sessions(server)


def test_a_message_over_the_limit_closes_its_own_connection(server: Server, crowd: Crowd) -> None:
    big, neighbour = crowd.join(), crowd.join()
    big.send(b'{"event":"ping","x":"' + b"x" * 65_536 + b'"}')
    big.until(lambda: False)
    assert big.close_code == 1009
    neighbour.ping()


def test_a_message_as_long_as_allowed_is_taken(server: Server, crowd: Crowd) -> None:
    peer = crowd.join()
    head, tail = b'{"event":"ping","id":5,"x":"', b'"}'
    peer.send(head + b"x" * (65_536 - len(head) - len(tail)) + tail)
    peer.until(lambda: peer.messages)
    assert peer.messages == [b'{"event":"pong","id":5}']
