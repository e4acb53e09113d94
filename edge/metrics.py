"""What a worker measures, as Prometheus metrics that any worker can render for all of them.

Comes in: plain integer counters of hot paths, watched and flushed once a second, and single
observations. Goes out: samples in files shared between the workers. Any room may count; only
``edge.server`` imports this before a worker runs, because ``PROMETHEUS_MULTIPROC_DIR`` must be set
first. ``otp_*`` names are those of the reference gateway, so that its dashboards keep working.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

SESSIONS_ACTIVE = Gauge(
    "otp_sessions_active", "Sessions with a connected client", multiprocess_mode="livesum"
)
SESSIONS_DETACHED = Gauge(
    "otp_sessions_detached",
    "Sessions without a client: its return, or their last transcripts, are awaited",
    multiprocess_mode="livesum",
)
PARTICIPANTS_ACTIVE = Gauge("otp_participants_active", "Open tracks", multiprocess_mode="livesum")
BACKEND_CONNECTIONS_ACTIVE = Gauge(
    "otp_backend_connections_active", "Open recognizer streams", multiprocess_mode="livesum"
)
BREAKER_OPEN = Gauge(
    "edgescribe_breaker_open",
    "1 while a recognizer that failed is left alone by some worker",
    ["provider"],
    multiprocess_mode="livemax",
)
SESSION_STARTS = Counter("otp_session_starts", "Sessions opened, by recognizer", ["provider"])
SESSION_REATTACHMENTS = Counter(
    "otp_session_reattachments", "Connections that went on with a session there was"
)
SESSION_DURATION = Histogram(
    "otp_session_duration_seconds",
    "Length of sessions",
    buckets=(60, 300, 600, 1800, 3600, 7200),
)
CLIENT_AUDIO_BYTES = Counter("otp_client_audio_bytes", "Audio payload bytes from clients")
CLIENT_AUDIO_CHUNKS = Counter("otp_client_audio_chunks", "Audio packets from clients")
CLIENT_CLOSES = Counter("otp_client_websocket_close", "Client connections closed", ["code"])
BACKEND_AUDIO_BYTES = Counter(
    "otp_backend_audio_sent_bytes", "Audio bytes handed to recognizers", ["provider"]
)
BACKEND_ERRORS = Counter(
    "otp_backend_errors", "Recognizer streams that failed", ["provider", "type"]
)
BACKEND_CONNECTION_DURATION = Histogram(
    "otp_backend_connection_duration_seconds",
    "Time to open a recognizer stream",
    ["provider"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
TRANSCRIPTIONS_RECEIVED = Counter(
    "otp_transcriptions_received", "Transcripts from recognizers", ["provider", "is_interim"]
)
TRANSCRIPTIONS_DELIVERED = Counter(
    "otp_transcriptions_delivered", "Transcripts sent to clients", ["provider", "is_interim"]
)
TRANSCRIPTION_LATENCY = Histogram(
    "otp_transcription_latency_seconds",
    "From the arrival of an utterance's last audio to its final transcript",
    buckets=(0.5, 1, 2, 5, 10, 30),
)
FINAL_LATENCY = Histogram(
    "edgescribe_final_latency_seconds",
    "Like otp_transcription_latency_seconds, by recognizer and finer",
    ["provider"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 30),
)
UPGRADES_REFUSED = Counter(
    "edgescribe_upgrades_refused", "WebSocket upgrades answered with an error", ["status"]
)
LOOP_DELAY = Histogram(
    "edgescribe_event_loop_delay_seconds",
    "How late a worker's timer ran; a busy or blocked event loop shows here first",
    buckets=(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
TASKS = Gauge(
    "edgescribe_tasks",
    "asyncio tasks; without sessions as many as after the start, or something was left behind",
    multiprocess_mode="livesum",
)
BUILD_INFO = Gauge(
    "edgescribe_build_info",
    "Always 1; the labels say what runs",
    ["version", "python", "libopus"],
    multiprocess_mode="livemax",
)
LANE_MESSAGES = Counter("edgescribe_client_messages", "WebSocket messages", ["direction"])
LANE_BYTES = Counter("edgescribe_client_bytes", "Bytes of client WebSockets", ["direction"])
LANE_FAULTS = Counter(
    "edgescribe_client_faults", "Client WebSockets that this side had to end", ["reason"]
)
LANE_COUNTERS = {
    "opened": Counter("edgescribe_client_connections", "Client WebSockets opened"),
    "messages_in": LANE_MESSAGES.labels("in"),
    "messages_out": LANE_MESSAGES.labels("out"),
    "bytes_in": LANE_BYTES.labels("in"),
    "bytes_out": LANE_BYTES.labels("out"),
    "slow_peers": LANE_FAULTS.labels("slow"),
    "silent_peers": LANE_FAULTS.labels("silent"),
    "violations": LANE_FAULTS.labels("protocol"),
    "crashes": LANE_FAULTS.labels("crash"),
}
"""Where the fields of ``edge.transport.registry.LaneCounts`` go."""


class Watch:
    """The integer attributes of one source, and what of them has been counted already."""

    __slots__ = ("_counted", "_into", "_read", "_source")

    def __init__(self, source: object, into: Mapping[str, Counter]) -> None:
        self._source = source
        self._into = tuple(into.values())
        self._read = _reader(tuple(into))
        self._counted = (0,) * len(into)

    def collect(self, gained: dict[Counter, int]) -> None:
        """Add what the source gained since the last time to ``gained``."""
        values = self._read(self._source() if callable(self._source) else self._source)
        before, self._counted = self._counted, values
        if values == before:
            return
        for counter, value, counted in zip(self._into, values, before, strict=True):
            if value != counted:
                gained[counter] = gained.get(counter, 0) + value - counted


@cache
def _reader(fields: tuple[str, ...]) -> Callable[[object], tuple[int, ...]]:
    """Reads these attributes of an object, all in one call."""
    read: Callable[[object], Any] = attrgetter(*fields)
    return read if len(fields) > 1 else lambda source: (read(source),)


class Flusher:
    """Carries plain integers of hot paths into Prometheus counters, summed over all sources.

    Counting costs a hot path one integer addition; the shared files are touched once per counter
    and flush, however many tracks and connections there are.
    """

    def __init__(self) -> None:
        self._watches: dict[int, Watch] = {}
        self._gained: dict[Counter, int] = {}
        self._observed: list[tuple[Histogram, float]] = []

    def watch(self, source: object, into: Mapping[str, Counter]) -> None:
        """Count the attributes of ``source`` named in ``into``; they must only ever grow.

        ``source`` may be a function that returns what has them.
        """
        self._watches[id(source)] = Watch(source, into)

    def unwatch(self, source: object) -> None:
        """Take the last of ``source`` and let it go; a source that is not watched is fine."""
        if watch := self._watches.pop(id(source), None):
            watch.collect(self._gained)

    def count(self, counter: Counter) -> None:
        """Count one more at the next flush."""
        self._gained[counter] = self._gained.get(counter, 0) + 1

    def observe(self, histogram: Histogram, value: float) -> None:
        """Take a value into a histogram at the next flush."""
        self._observed.append((histogram, value))

    def flush(self) -> None:
        """Add everything gained since the last flush to the counters and histograms."""
        for watch in self._watches.values():
            watch.collect(self._gained)
        gained, self._gained = self._gained, {}
        for counter, more in gained.items():
            counter.inc(more)
        observed, self._observed = self._observed, []
        for histogram, value in observed:
            histogram.observe(value)


FLUSHER = Flusher()
"""The worker's one flusher; the server flushes it every second."""


class RecognizerMetrics:
    """Counts what supervisors report (``edge.asr.observer.RecognizerObserver``)."""

    def connected(self, provider: str, seconds: float) -> None:
        BACKEND_CONNECTION_DURATION.labels(provider).observe(seconds)

    def error(self, provider: str, code: str) -> None:
        BACKEND_ERRORS.labels(provider, code).inc()

    def received(self, provider: str, is_interim: bool) -> None:
        FLUSHER.count(_counter(TRANSCRIPTIONS_RECEIVED, provider, is_interim))

    def audio_sent(self, provider: str, size: int) -> None:
        BACKEND_AUDIO_BYTES.labels(provider).inc(size)

    def connection_opened(self, provider: str) -> None:
        BACKEND_CONNECTIONS_ACTIVE.inc()

    def connection_closed(self, provider: str) -> None:
        BACKEND_CONNECTIONS_ACTIVE.dec()


def delivered(provider: str, is_interim: bool) -> None:
    """Count a transcript that went to its client."""
    FLUSHER.count(_counter(TRANSCRIPTIONS_DELIVERED, provider, is_interim))


def final_latency(provider: str, seconds: float) -> None:
    """Record how long after an utterance's last audio its final came."""
    FLUSHER.observe(TRANSCRIPTION_LATENCY, seconds)
    FLUSHER.observe(_final_latency(provider), seconds)


@cache
def _final_latency(provider: str) -> Histogram:
    return FINAL_LATENCY.labels(provider)


@cache
def _counter(counter: Counter, provider: str, is_interim: bool) -> Counter:
    return counter.labels(provider, "true" if is_interim else "false")
