"""A well-behaved client in a process of its own: how long a ping waits for its pong.

    python -m tests.hostile.neighbour PORT SECONDS

Prints the 50th and 99th percentile in milliseconds and the number of pings.
"""

from __future__ import annotations

import socket
import sys
import time

from _native import frame_writer
from _native.frames import TEXT, Decoder

EVERY_S = 0.005
WARM_UP = 50
UPGRADE = (
    b"GET /transcribe?sendBack=true&info=false HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def measure(port: int, seconds: float) -> list[float]:
    """Milliseconds from each ping to its pong, in order."""
    waits_ms: list[float] = []
    decoder = Decoder(1 << 20, masked=False)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(UPGRADE)
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        due_s = time.perf_counter()
        ends_s = due_s + seconds
        number = 0
        while due_s < ends_s or number < 2 * WARM_UP:
            time.sleep(max(0.0, due_s - time.perf_counter()))
            ping = b'{"event":"ping","id":%d}' % number
            sent_s = time.perf_counter()
            connection.sendall(frame_writer.encode_masked(TEXT, ping, b"\1\2\3\4"))
            messages: list[tuple[int, bytes]] = []
            while not messages:
                received = connection.recv(65536)
                assert received, "the gateway closed a neighbour's connection"
                messages = decoder.decode(received)
            waits_ms.append((time.perf_counter() - sent_s) * 1000)
            assert messages == [(TEXT, b'{"event":"pong","id":%d}' % number)]
            number += 1
            due_s = max(due_s + EVERY_S, sent_s)
        connection.sendall(
            frame_writer.encode_masked(8, frame_writer.close_payload(1000), b"\1\2\3\4")
        )
    return waits_ms[WARM_UP:]


def main() -> None:
    """Measure and print."""
    waits_ms = sorted(measure(int(sys.argv[1]), float(sys.argv[2])))
    at = len(waits_ms) - 1
    print(waits_ms[round(at * 0.5)], waits_ms[round(at * 0.99)], len(waits_ms))


if __name__ == "__main__":
    main()
