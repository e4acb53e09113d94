"""Many clients that all send as fast as they are read, in a process of their own.

    python -m tests.hostile.flooder PORT KIND COUNT

Prints a line when all are connected, and floods until standard input ends. It gives way to other
processes, so that on a small machine a neighbour's waits are the gateway's doing.
"""

from __future__ import annotations

import os
import selectors
import sys
from contextlib import suppress

from _native.frame_writer import encode_masked
from _native.frames import PING
from tests.hostile.support import MASK, Crowd, text
from tests.ingest.support.media import media_event
from tests.support.speech import speech_packets

EVENTS = (b'{"event":"ping"}', b"not json", b'{"event":"media"}', b"", b"{}" * 50)


def audio() -> bytes:
    """Ten seconds of speech, in order."""
    packets = enumerate(speech_packets(500))
    return b"".join(text(media_event("a", number, packet).encode()) for number, packet in packets)


KINDS = {
    "audio": audio,
    "events": lambda: b"".join(map(text, EVENTS)) * 2_000,
    "pings": lambda: encode_masked(PING, b"x" * 125, MASK) * 5_000,
}


def main() -> None:
    """Connect and flood."""
    port, kind, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(5)
    blob = memoryview(KINDS[kind]())
    crowd = Crowd(port)
    selector = selectors.DefaultSelector()
    left = {}
    for _ in range(count):
        connection = crowd.join().socket
        connection.setblocking(False)
        left[connection] = blob
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
    stdin = selector.register(sys.stdin, selectors.EVENT_READ)
    print("flooding", flush=True)
    while True:
        for key, events in selector.select():
            if key is stdin:
                return
            connection = key.fileobj
            try:
                if events & selectors.EVENT_READ and not connection.recv(1 << 16):
                    raise OSError("closed")
                if events & selectors.EVENT_WRITE:
                    rest = left[connection]
                    left[connection] = rest[connection.send(rest) :] or blob
            except BlockingIOError:
                pass
            except OSError:
                with suppress(KeyError):
                    selector.unregister(connection)


if __name__ == "__main__":
    main()
