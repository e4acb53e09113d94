"""The composition root: settings in, a worker's gateway out. Rooms are wired together here only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.api.answers import Answers
from edge.api.meeting_routes import socket_endpoint
from edge.api.plain import Health
from edge.api.routes import endpoints
from edge.api.tracks import TracksOfWorker, tracks_endpoint
from edge.api.transcriptions import transcription_endpoint
from edge.asr.registry import RecognizerConfig, Recognizers, model, resolve, survey
from edge.auth.exposure import is_configured
from edge.auth.guard import Guard
from edge.dispatching.deliveries import Deliveries
from edge.dispatching.ways import Lookup, Surroundings, build_way
from edge.ingest.counts import IngestCounts
from edge.ingest.file import FileListener
from edge.ingest.registry import client_protocols
from edge.meeting.meetings import Meetings
from edge.meeting.status import Recognition
from edge.objects.opening import open_objects
from edge.server.boot import Boot
from edge.session.dump import Dumps
from edge.session.gateway import Gateway
from edge.session.ledger import Ledger
from edge.session.meters import Meters
from edge.session.stability import Stability
from edge.session.store.interface import SessionStore
from edge.session.store.opening import open_store
from edge.session.upkeep import Upkeep
from edge.settings import Settings
from edge.telemetry.starting import telemetry

if TYPE_CHECKING:
    from edge.telemetry.otlp import Telemetry

DATABASE = "sessions.db"


def build_store(settings: Settings) -> SessionStore:
    """One worker's session store, not yet opened."""
    location = settings.store.store or str(settings.server.data_dir / DATABASE)
    return open_store(location, settings.store.durability)


def build_recognizers(settings: Settings, boot: Boot) -> Recognizers:
    """One worker's recognizers, not yet started.

    Raises ``NoRecognizer`` when none can be used, ``SettingError`` when a setting of one is wrong.
    """
    return Recognizers(recognizer_config(settings, boot.embedded_socket))


def build_meetings(
    settings: Settings,
    store: SessionStore,
    recognizers: Recognizers,
    deliveries: Deliveries | None = None,
) -> Meetings:
    """One worker's meetings, not yet started; raises ``SettingError``."""
    config = recognizer_config(settings)
    dispatches = deliveries if settings.session.use_dispatcher else None
    return Meetings(
        settings.meeting,
        store,
        open_objects(settings.objects, settings.server.data_dir),
        recognition=Offered(settings).recognition,
        choices=recognizers.choices,
        model_of=lambda name: model(name, config),
        posted=dispatches.wake if dispatches else None,
    )


def build_upkeep(
    settings: Settings, store: SessionStore, stability: Stability, meetings: Meetings
) -> Upkeep:
    """What one worker does for all sessions, not yet started."""
    return Upkeep(
        settings.retention,
        store,
        stability,
        gone=meetings.removal.intend,
        chores=(meetings.chores,),
    )


def build_answers(
    settings: Settings,
    store: SessionStore,
    upkeep: Upkeep,
    meetings: Meetings,
    gateway: Gateway,
    tracks: Callable[[], Awaitable[list[TracksOfWorker]]],
) -> Answers:
    """One worker's answers to HTTP requests about sessions, and to files for the gateway.

    ``tracks`` tells what the tracks of all workers do.
    """
    doors = [tracks_endpoint(tracks)]
    if "openai" in settings.doors.front_doors:
        listener = FileListener(gateway, settings.doors.file_audio_s)
        doors += [transcription_endpoint(listener), socket_endpoint("/v1/realtime")]
    if "deepgram" in settings.doors.front_doors:
        doors.append(socket_endpoint("/v1/listen"))
    return Answers(endpoints(store, upkeep.figures, meetings, Offered(settings).problem, doors))


def build_telemetry(settings: Settings, worker: int) -> Telemetry | None:
    """What pushes one worker's spans and metrics, not yet started; None when nobody takes them.

    Raises ``MissingDependency``.
    """
    return telemetry(settings.telemetry, worker)


def build_health(settings: Settings) -> Health:
    """What ``/health`` says of meetings."""
    known = Offered(settings).recognition("")
    return Health(
        asr_enabled=known.enabled,
        asr_realtime_enabled=known.mode == "realtime",
        asr_mode=known.mode,
        asr_model=known.model,
        asr_window_seconds=known.window_seconds,
        asr_hop_seconds=known.hop_seconds,
    )


class Offered:
    """The recognizers that meetings may choose from; raises what ``survey`` raises."""

    def __init__(self, settings: Settings) -> None:
        config = recognizer_config(settings)
        found, meeting = survey(config), settings.meeting
        self._default = found.default
        self._known = {
            name: Recognition(
                enabled=meeting.asr_enabled,
                provider=name,
                model=model(name, config),
                mode="realtime" if meeting.asr_realtime_enabled else "windowed",
                window_seconds=meeting.asr_window_seconds,
                hop_seconds=meeting.asr_hop_seconds,
            )
            for name in found.available
        }

    def problem(self, provider: str) -> str | None:
        """Why a recognizer cannot be chosen; empty leaves the choice to the gateway."""
        if not provider or resolve(provider) in self._known:
            return None
        return f"provider is one of {', '.join(self._known)}"

    def recognition(self, provider: str) -> Recognition:
        """What is known beforehand of recognition by a provider, or by the one that is chosen."""
        return self._known.get(resolve(provider)) or self._known[self._default]


def build_guard(settings: Settings, store: SessionStore) -> Guard | None:
    """One worker's, not yet started; None where nobody has to show anything.

    Raises ``SettingError``.
    """
    data_dir = settings.server.data_dir
    if not is_configured(settings.auth, data_dir):
        return None
    return Guard(settings.auth, data_dir, store, settings.listen.listen_paths)


def build_deliveries(
    settings: Settings, store: SessionStore, lookup: Lookup | None = None
) -> Deliveries | None:
    """One worker's way to the dispatcher, not yet started; None when there is none.

    ``lookup`` finds services of the router by name. Raises ``SettingError``.
    """
    around = Surroundings(settings.server.data_dir, lookup, settings.store.durability)
    transport = build_way(settings.dispatch, around)
    return None if transport is None else Deliveries(settings.dispatch, store, transport)


def build_gateway(
    settings: Settings,
    recognizers: Recognizers,
    store: SessionStore,
    meetings: Meetings,
    deliveries: Deliveries | None = None,
) -> Gateway:
    """One worker's gateway, not yet started; ``store`` is open from before until after."""
    counts = IngestCounts()
    meters = Meters(counts)
    ledger = (
        Ledger(store, settings.store, deliveries.wake)
        if deliveries
        else Ledger(store, settings.store)
    )
    meters.watch_ledger(ledger.counts)
    for recognizer in recognizers:
        if recognizer.counts is not None:
            meters.watch_recognizer(recognizer.name, recognizer.counts)
    return Gateway(
        settings.session,
        protocols=client_protocols(counts, settings.listen, meetings, settings.doors.front_doors),
        recognizers=recognizers,
        supervision=settings.supervisor,
        audio=settings.track,
        dumps=Dumps(settings.dump, settings.server.data_dir),
        meters=meters,
        stability=Stability(),
        ledger=ledger,
        dispatches=deliveries is not None,
    )


def recognizer_config(settings: Settings, embedded_socket: str = "") -> RecognizerConfig:
    """All that recognizers are built from; without a socket it is only good for a survey."""
    return RecognizerConfig(
        choice=settings.recognizers,
        rooms=tuple(settings.recognizer.values()),
        embedded_socket=Path(embedded_socket),
    )
