"""The recognizers of this gateway: which exist, which can be used, and in which order.

Comes in: settings. Goes out: the recognizers of one worker, best first, or one clear error. The
launcher may call ``survey`` before any worker runs; a worker builds ``Recognizers`` once. A new
recognizer is its module and one entry in ``ENTRIES``, which also brings its settings;
docs/adding-a-recognizer.md shows how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from edge.asr.deepgram import DeepgramRecognizer, DeepgramSettings
from edge.asr.deepgram import missing as deepgram_missing
from edge.asr.dummy import DummyRecognizer
from edge.asr.embedded import EmbeddedRecognizer, EmbeddedSettings, require_packages
from edge.asr.flux import FluxRecognizer, FluxSettings
from edge.asr.funasr import FunASRRecognizer, FunASRSettings
from edge.asr.funasr import missing as funasr_missing
from edge.asr.interface import Recognizer
from edge.asr.openai_custom import OpenAICustomRecognizer, OpenAICustomSettings
from edge.asr.openai_custom import missing as openai_custom_missing
from edge.asr.openai_realtime import OpenAIRecognizer, OpenAISettings
from edge.asr.openai_realtime import missing as openai_missing
from edge.asr.settings import ChoiceSettings
from edge.errors import DamagedDependency, MissingDependency, NoRecognizer, SettingError
from edge.logs import get_logger

_log = get_logger("edge.asr.registry")
_S = TypeVar("_S", bound=msgspec.Struct)

EMBEDDED_MODEL = "moonshine-tiny-en"
REFERENCE_PROVIDERS = frozenset({"gemini", "xai"})
"""Names in priority lists written for other gateways; skipped where there is no such entry."""


class RecognizerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that recognizers are built from."""

    choice: ChoiceSettings = ChoiceSettings()
    rooms: tuple[msgspec.Struct, ...] = ()
    """The settings of single recognizers, as their entries declare them."""
    embedded_socket: Path = Path("edgescribe-inference.sock")
    """Where the machine's inference process listens."""

    def of(self, kind: type[_S]) -> _S:
        """The settings of this type; their defaults if none were given."""
        return next((room for room in self.rooms if isinstance(room, kind)), None) or kind()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One recognizer that exists."""

    name: str
    missing: Callable[[RecognizerConfig], str | None]
    """What a person has to do before it can be used, or None."""
    build: Callable[[RecognizerConfig], Recognizer]
    """May raise ``SettingError``."""
    settings: type[msgspec.Struct] | None = None
    """What an operator may choose about it, in a table of its name; fields carry an ``option``."""
    model: Callable[[RecognizerConfig], str] = lambda config: ""
    """What the recognizer calls its model; empty where it has no name."""
    aliases: tuple[str, ...] = ()
    """Other names clients and priority lists may use."""
    default: bool = True
    """Whether it takes part in the default order while there are others."""


def _embedded_missing(config: RecognizerConfig) -> str | None:
    try:
        require_packages()
    except (MissingDependency, DamagedDependency) as error:
        return str(error)
    return None


def _dummy_missing(config: RecognizerConfig) -> str | None:
    return None if config.choice.enable_dummy_provider else "set ENABLE_DUMMY_PROVIDER=true"


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="openai",
        missing=lambda config: openai_missing(config.of(OpenAISettings)),
        build=lambda config: OpenAIRecognizer(config.of(OpenAISettings)),
        settings=OpenAISettings,
        model=lambda config: config.of(OpenAISettings).openai_model,
    ),
    Entry(
        name="deepgram",
        missing=lambda config: deepgram_missing(config.of(DeepgramSettings)),
        build=lambda config: DeepgramRecognizer(config.of(DeepgramSettings)),
        settings=DeepgramSettings,
        model=lambda config: config.of(DeepgramSettings).deepgram_model,
    ),
    Entry(
        name="flux",
        missing=lambda config: deepgram_missing(config.of(DeepgramSettings)),
        build=lambda config: FluxRecognizer(config.of(FluxSettings), config.of(DeepgramSettings)),
        settings=FluxSettings,
        model=lambda config: config.of(FluxSettings).flux_model,
        default=False,
    ),
    Entry(
        name="funasr",
        missing=lambda config: funasr_missing(config.of(FunASRSettings)),
        build=lambda config: FunASRRecognizer(config.of(FunASRSettings)),
        settings=FunASRSettings,
        model=lambda config: config.of(FunASRSettings).funasr_model,
    ),
    Entry(
        name="embedded",
        missing=_embedded_missing,
        build=lambda config: EmbeddedRecognizer(
            config.of(EmbeddedSettings), config.embedded_socket
        ),
        settings=EmbeddedSettings,
        model=lambda config: EMBEDDED_MODEL,
    ),
    Entry(
        name="openai_custom",
        missing=lambda config: openai_custom_missing(config.of(OpenAICustomSettings)),
        build=lambda config: OpenAICustomRecognizer(
            config.of(OpenAICustomSettings), config.of(OpenAISettings)
        ),
        settings=OpenAICustomSettings,
        aliases=("custom_openai",),
        default=False,
    ),
    Entry(
        name="dummy",
        missing=_dummy_missing,
        build=lambda config: DummyRecognizer(),
        default=False,
    ),
)
"""All recognizers in their default order: those with keys first, then the embedded one."""


def recognizer_rooms() -> Mapping[str, type[msgspec.Struct]]:
    """The settings of single recognizers, by their table's name."""
    return {entry.name: entry.settings for entry in ENTRIES if entry.settings is not None}


def aliases() -> Mapping[str, str]:
    """The other names of recognizers, each with the real one."""
    return {alias: entry.name for entry in ENTRIES for alias in entry.aliases}


def resolve(name: str) -> str:
    """A recognizer's own name for a name in any case, or one of its aliases."""
    wanted = name.strip().lower()
    return aliases().get(wanted, wanted)


def model(name: str, config: RecognizerConfig) -> str:
    """The model of a recognizer, by its own name; empty where it has none."""
    return next((entry.model(config) for entry in ENTRIES if entry.name == name), "")


class Availability(msgspec.Struct, frozen=True):
    """One recognizer that exists and why it cannot be used, if it cannot."""

    name: str
    missing: str | None


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to choose from."""

    recognizers: tuple[Availability, ...]
    """All that exist."""
    order: tuple[str, ...]
    """Those that serve a track which names none, best first; never empty."""

    @property
    def default(self) -> str:
        """The recognizer of a track that names none."""
        return self.order[0]

    @property
    def known(self) -> tuple[str, ...]:
        """All names, for messages."""
        return tuple(entry.name for entry in self.recognizers)

    @property
    def available(self) -> tuple[str, ...]:
        """Names that can be used, the default order first."""
        usable = [entry.name for entry in self.recognizers if entry.missing is None]
        return (*self.order, *(name for name in usable if name not in self.order))


def survey(config: RecognizerConfig) -> Survey:
    """Find out what can be used; imports no model and opens no connection.

    Raises ``NoRecognizer`` if nothing can be used, ``SettingError`` if a name of the priority list
    does not exist.
    """
    recognizers = tuple(Availability(entry.name, entry.missing(config)) for entry in ENTRIES)
    usable = {entry.name for entry in recognizers if entry.missing is None}
    wanted = _priority(config.choice.providers_priority)
    if wanted:
        order = tuple(name for name in wanted if name in usable)
    else:
        order = tuple(entry.name for entry in ENTRIES if entry.default and entry.name in usable)
        order = order or tuple(entry.name for entry in ENTRIES if entry.name in usable)
    if not order:
        missing = {entry.name: entry.missing for entry in recognizers if entry.missing is not None}
        listed = wanted or tuple(entry.name for entry in ENTRIES if entry.default)
        raise NoRecognizer({name: missing[name] for name in listed})
    return Survey(recognizers=recognizers, order=order)


def _priority(names: Sequence[str]) -> tuple[str, ...]:
    """The priority list without doubles and without names of other gateways; any case."""
    exist = {entry.name for entry in ENTRIES}
    wanted: dict[str, None] = {}
    for name in map(resolve, names):
        if name in exist:
            wanted[name] = None
        elif name not in REFERENCE_PROVIDERS:
            raise SettingError(
                "PROVIDERS_PRIORITY", name, f"recognizers are {', '.join(sorted(exist))}"
            )
    if names and not wanted:
        raise SettingError(
            "PROVIDERS_PRIORITY", ",".join(names), f"recognizers are {', '.join(sorted(exist))}"
        )
    return tuple(wanted)


class Recognizers:
    """The recognizers of one worker, built and shared by all its tracks."""

    def __init__(self, config: RecognizerConfig) -> None:
        """Raises what ``survey`` raises, and ``SettingError`` for a setting of one of them."""
        self.survey = survey(config)
        available = self.survey.available
        self._by_name = {
            entry.name: entry.build(config) for entry in ENTRIES if entry.name in available
        }

    def choices(self, provider: str | None = None) -> tuple[Recognizer, ...]:
        """The recognizers of a track, best first: the one it names alone, or the default order.

        Raises ``KeyError`` for a name that is not available.
        """
        if provider:
            return (self._by_name[resolve(provider)],)
        return tuple(self._by_name[name] for name in self.survey.order)

    def __iter__(self) -> Iterator[Recognizer]:
        """All that are available."""
        return iter(self._by_name.values())

    async def start(self) -> None:
        """Start all; if one fails to start, all are stopped."""
        try:
            for recognizer in self._by_name.values():
                await recognizer.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all, whatever fails; call it when all streams have closed."""
        for recognizer in self._by_name.values():
            try:
                await recognizer.stop()
            except Exception:
                _log.exception("recognizer did not stop cleanly", provider=recognizer.name)
