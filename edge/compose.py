"""The composition root: settings in, a worker's gateway out. Rooms are wired together here only."""

from __future__ import annotations

from pathlib import Path

from edge.api.answers import Answers
from edge.api.routes import endpoints
from edge.asr.registry import RecognizerConfig, Recognizers
from edge.ingest.counts import IngestCounts
from edge.ingest.registry import client_protocols
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

DATABASE = "sessions.db"


def build_store(settings: Settings) -> SessionStore:
    """One worker's session store, not yet opened."""
    location = settings.store.store or str(settings.server.data_dir / DATABASE)
    return open_store(location, settings.store.durability)


def build_answers(store: SessionStore, upkeep: Upkeep) -> Answers:
    """One worker's answers to HTTP requests about sessions."""
    return Answers(endpoints(store, upkeep.figures))


def build_gateway(settings: Settings, boot: Boot, store: SessionStore) -> Gateway:
    """One worker's gateway, not yet started; ``store`` is open from before until after.

    Raises ``NoRecognizer`` when none can be used, ``SettingError`` when a setting of one is wrong.
    """
    counts = IngestCounts()
    meters = Meters(counts)
    ledger = Ledger(store, settings.store)
    meters.watch_ledger(ledger.counts)
    recognizers = Recognizers(recognizer_config(settings, boot.embedded_socket))
    for recognizer in recognizers:
        if recognizer.counts is not None:
            meters.watch_recognizer(recognizer.name, recognizer.counts)
    return Gateway(
        settings.session,
        protocols=client_protocols(counts, settings.listen),
        recognizers=recognizers,
        supervision=settings.supervisor,
        audio=settings.track,
        dumps=Dumps(settings.dump, settings.server.data_dir),
        meters=meters,
        stability=Stability(),
        ledger=ledger,
    )


def recognizer_config(settings: Settings, embedded_socket: str = "") -> RecognizerConfig:
    """All that recognizers are built from; without a socket it is only good for a survey."""
    return RecognizerConfig(
        choice=settings.recognizers,
        rooms=tuple(settings.recognizer.values()),
        embedded_socket=Path(embedded_socket),
    )
