"""Too much of everything: the documented answer, bounded memory, neighbours that never notice."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest

from _native.frame_writer import encode_masked
from _native.frames import PING
from tests.hostile.neighbour import UPGRADE
from tests.hostile.support import (
    Crowd,
    Effort,
    Peer,
    flooding,
    metric,
    no_sessions,
    text,
    unharmed,
)
from tests.ingest.support.media import media_event
from tests.support.server import Server, running, wait_until
from tests.support.speech import speech_packets

SLOW_PEERS = 'edgescribe_client_faults_total{reason="slow"}'


def flood(peer: Peer, data: bytes) -> Callable[[], None]:
    """Sends as fast as it is read, until the connection is cut."""
    return lambda: peer.socket.sendall(data)


def test_100_000_events_a_second_from_one_socket_are_read_at_the_allowed_pace(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    events = [b'{"event":"ping"}', b"not json", b'{"event":"media"}', b"", b"{}" * 50]
    blob = b"".join(text(event) for event in events) * (effort.events // 50)
    with unharmed(server, effort, grows_mb=20) as compare:
        peer = crowd.join()
        compare(flood(peer, blob), lambda: _swallow(peer))
        assert metric(server, "edgescribe_connections_slowed_total") > 0
        crowd.leave()
        no_sessions(server, within_s=5.0)


def test_a_flood_of_audio_is_read_at_the_allowed_pace(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    packets = speech_packets(500)
    blob = b"".join(text(media_event("a", n, p).encode()) for n, p in enumerate(packets))
    with unharmed(server, effort, grows_mb=30) as compare:
        peer = crowd.join()
        compare(flood(peer, blob))
        crowd.leave()
        no_sessions(server)


def test_a_flood_of_control_frames_holds_nobody_up(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    blob = encode_masked(PING, b"x" * 125, b"abcd") * 5_000
    with unharmed(server, effort, grows_mb=20) as compare:
        peer = crowd.join()
        compare(flood(peer, blob), lambda: _swallow(peer))
        crowd.leave()
        no_sessions(server)


@pytest.mark.parametrize("kind", ["audio", "events", "pings"])
def test_many_that_flood_together_are_heard_in_turns(
    server: Server, effort: Effort, kind: str
) -> None:
    with unharmed(server, effort, grows_mb=1.2 * effort.flooders + 30) as compare:
        compare(during=lambda: flooding(server, kind, effort.flooders))
        no_sessions(server)


def test_of_10_000_tags_on_a_socket_500_are_taken_and_the_rest_refused_once(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    with unharmed(server, effort, grows_mb=90) as compare:
        peer = crowd.join("sendBack=true&errors=true&info=false")
        packet = speech_packets(1)[0]

        def open_tags() -> None:
            for number in range(effort.tags):
                peer.send(media_event(f"tag-{number}", 1, packet).encode())
            peer.ping()

        open_tags()
        errors = [json.loads(message) for message in peer.messages if b'"error"' in message]
        assert {error["code"] for error in errors} == {"too_many_tags"}
        refused = [error["tag"] for error in errors]
        assert len(refused) == len(set(refused)) == min(1000, effort.tags - 500)
        assert json.loads(server.get("/status").body)["tracks"] == 500
        compare(flood(peer, text(media_event(refused[-1], 2, packet).encode()) * 1000))
        crowd.leave()
        no_sessions(server)


def test_a_peer_that_never_reads_is_closed_with_its_outbox(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    blob = text(b'{"event":"ping","id":12345678901234567890}') * 2_000

    def ask_and_never_read() -> None:
        peer = crowd.join(receive_buffer_bytes=4096)
        peer.socket.settimeout(4.0)
        with contextlib.suppress(OSError):
            while True:
                peer.socket.sendall(blob)

    with unharmed(server, effort, grows_mb=30) as compare:
        compare(ask_and_never_read)
        wait_until(lambda: metric(server, SLOW_PEERS) > 0, SLOW_PEERS)
        crowd.leave()
        no_sessions(server)


def test_upgrades_that_trickle_in_are_cut_at_their_deadline(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    head = b"GET /transcribe?sendBack=true HTTP/1.1\r\nHost: x\r\nX-Slow: "
    sockets = []
    with unharmed(server, effort, grows_mb=25) as compare:

        def trickle() -> None:
            for connection in sockets:
                with contextlib.suppress(OSError):
                    connection.send(b"x")
            time.sleep(0.5)

        for _ in range(effort.slow_upgrades):
            sockets.append(crowd.connect())
            sockets[-1].sendall(head)
        begun_s = time.monotonic()
        compare(trickle)
        for connection in sockets:
            while time.monotonic() < begun_s + 20:
                with contextlib.suppress(OSError):
                    connection.send(b"x")
                connection.settimeout(1.0)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
                    break
        assert time.monotonic() < begun_s + 20 + effort.rounds * 2 * effort.seconds


def test_thousands_of_idle_websockets_are_held_and_answered(effort: Effort) -> None:
    count = effort.idle_sockets
    arguments = ("--workers", "1", "--set", f"max_sessions={count + 500}")
    with (
        running(*arguments) as server,
        unharmed(server, effort, grows_mb=40 + count / 20) as compare,
    ):
        crowd = Crowd(server.port)
        peers = [crowd.join() for _ in range(count)]
        assert json.loads(server.get("/status").body)["active"] == count
        compare()
        for peer in peers:
            peer.ping()
        crowd.leave()
        no_sessions(server)


def test_idle_sockets_are_held_up_to_the_limit_and_refused_beyond(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    with unharmed(server, effort, grows_mb=80) as compare:
        peers = [crowd.join() for _ in range(min(effort.idle_sockets, 999))]
        others = [crowd.connect() for _ in range(effort.idle_sockets - len(peers))]
        compare()
        for peer in peers[:: max(1, len(peers) // 20)]:
            peer.ping()
        if others:
            crowd.join()
            answer = server.exchange(UPGRADE)
            assert answer == b"HTTP/1.1 503 Service Unavailable\r\n\r\nOverloaded"
        crowd.leave()
        no_sessions(server)


def test_connections_that_come_and_vanish_leave_nothing(
    server: Server, crowd: Crowd, effort: Effort
) -> None:
    (worker,) = server.workers()
    neighbours_fds = len(os.listdir(f"/proc/{worker}/fd"))
    with unharmed(server, effort, grows_mb=25):
        for number in range(effort.noise):
            connection = crowd.join().socket if number % 3 else crowd.connect()
            if number % 3 == 2:
                # Close with a reset.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        no_sessions(server)
        wait_until(
            lambda: len(os.listdir(f"/proc/{worker}/fd")) <= neighbours_fds + 2, "closed sockets"
        )


def _swallow(peer: Peer) -> None:
    with contextlib.suppress(TimeoutError):
        if not peer.socket.recv(1 << 16):
            raise OSError("closed")
