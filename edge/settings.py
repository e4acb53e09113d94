"""All settings in one table, and where each value came from.

Comes in: a file, the environment and command-line arguments, in that order of precedence (the last
wins), over the defaults each room declares. Goes out: one ``Settings`` value and the source of each
of its fields. Only the command line calls ``load``; everybody else is handed a room's Struct.

The file is TOML with one table per room::

    [server]
    port = 9090

Field names are unique over all rooms, so that ``EDGESCRIBE_<FIELD>`` and ``--set field=value`` are
unambiguous.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from edge.asr.registry import recognizer_rooms
from edge.asr.settings import ChoiceSettings, SupervisorSettings
from edge.audio.settings import TrackSettings
from edge.auth.settings import AuthSettings
from edge.demo.settings import MonitorSettings
from edge.dispatching.settings import DispatchSettings
from edge.errors import SettingError
from edge.ingest.settings import DoorSettings, ListenSettings
from edge.meeting.settings import MeetingSettings
from edge.objects.settings import ObjectSettings
from edge.server.settings import RoutingSettings, ServerSettings
from edge.session.dump import DumpSettings
from edge.session.retention import RetentionSettings
from edge.session.settings import SessionSettings
from edge.session.store.settings import StoreSettings
from edge.telemetry.settings import TelemetrySettings
from edge.transport.settings import LaneSettings

ENVIRONMENT_PREFIX = "EDGESCRIBE_"
DEFAULT_FILE = "edgescribe.toml"
FILE_VARIABLE = "EDGESCRIBE_CONFIG"
FOREIGN_VARIABLES = frozenset(
    {
        FILE_VARIABLE,
        "EDGESCRIBE_DEBUG",
        "EDGESCRIBE_SANITIZE",
        "EDGESCRIBE_VERSION",
        "EDGESCRIBE_SPEECH_DIR",
        "EDGESCRIBE_OPUS_VECTORS",
    }
)
"""Names with our prefix that belong to the build, to tests, or to ``load`` itself."""
HIDDEN = "***"
BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
"""Other words for true and false, as the environment of the gateways we replace has them."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, by room. The field names are the file's tables, except the last."""

    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
    routing: RoutingSettings = msgspec.field(default_factory=RoutingSettings)
    lane: LaneSettings = msgspec.field(default_factory=LaneSettings)
    session: SessionSettings = msgspec.field(default_factory=SessionSettings)
    store: StoreSettings = msgspec.field(default_factory=StoreSettings)
    objects: ObjectSettings = msgspec.field(default_factory=ObjectSettings)
    retention: RetentionSettings = msgspec.field(default_factory=RetentionSettings)
    listen: ListenSettings = msgspec.field(default_factory=ListenSettings)
    doors: DoorSettings = msgspec.field(default_factory=DoorSettings)
    auth: AuthSettings = msgspec.field(default_factory=AuthSettings)
    dispatch: DispatchSettings = msgspec.field(default_factory=DispatchSettings)
    meeting: MeetingSettings = msgspec.field(default_factory=MeetingSettings)
    dump: DumpSettings = msgspec.field(default_factory=DumpSettings)
    telemetry: TelemetrySettings = msgspec.field(default_factory=TelemetrySettings)
    track: TrackSettings = msgspec.field(default_factory=TrackSettings)
    recognizers: ChoiceSettings = msgspec.field(default_factory=ChoiceSettings)
    supervisor: SupervisorSettings = msgspec.field(default_factory=SupervisorSettings)
    monitor: MonitorSettings = msgspec.field(default_factory=MonitorSettings)
    recognizer: dict[str, msgspec.Struct] = msgspec.field(
        default_factory=lambda: {name: room() for name, room in recognizer_rooms().items()}
    )
    """Settings of single recognizers, by name; each name is a table of the file."""

    def room(self, section: str) -> msgspec.Struct:
        """The settings of one of the file's tables."""
        found = self.recognizer.get(section)
        return getattr(self, section) if found is None else found


class Setting:
    """One line of the table: what a field is called, what it takes, and how to read it."""

    def __init__(self, section: str, name: str, annotation: Any, default: Any) -> None:
        meta = next(item for item in get_args(annotation)[1:] if isinstance(item, msgspec.Meta))
        extra = meta.extra or {}
        self.section = section
        self.name = name
        self.type = annotation
        self.default = default
        self.meta = meta
        self.description = meta.description or ""
        self.secret = bool(extra.get("secret"))
        self.variables: tuple[str, ...] = (
            ENVIRONMENT_PREFIX + name.upper(),
            *(env for env in extra.get("env", ()) if env != ENVIRONMENT_PREFIX + name.upper()),
        )
        """Environment names; the first one that is set and not empty counts."""

    @property
    def flag(self) -> str:
        """The command-line option of settings that have one of their own."""
        return "--" + self.name.replace("_", "-")

    @cached_property
    def _plain(self) -> tuple[Any, bool]:
        """The type without ``Annotated`` and ``None``, and whether None is a value."""
        inner = get_args(self.type)[0]
        if get_origin(inner) in (Union, UnionType):
            members = [member for member in get_args(inner) if member is not NoneType]
            optional = len(members) < len(get_args(inner))
            if len(members) == 1:
                return members[0], optional
            return inner, optional
        return inner, False

    @property
    def allowed(self) -> str:
        """What values it takes, in words."""
        plain, _ = self._plain
        origin = get_origin(plain)
        if origin is Literal:
            return "one of " + ", ".join(str(choice) for choice in get_args(plain))
        if plain is bool:
            return "true or false"
        if origin in (tuple, list, set, frozenset):
            return "a comma-separated list"
        if origin is dict or plain is dict:
            return "a JSON object"
        if plain in (int, float):
            return ("a whole number" if plain is int else "a number") + self._bounds()
        if plain is Path:
            return "a path"
        return f"text matching `{self.meta.pattern}`" if self.meta.pattern else "text"

    def _bounds(self) -> str:
        low, above, high = self.meta.ge, self.meta.gt, self.meta.le
        if low is not None and high is not None:
            return f" from {low:g} to {high:g}"
        words = [
            f"{word} {bound:g}"
            for word, bound in (("of at least", low), ("above", above), ("of at most", high))
            if bound is not None
        ]
        return (" " + " and ".join(words)) if words else ""

    def parse(self, text: str, where: str) -> Any:
        """The value of ``text`` as an environment variable or an argument spells it."""
        plain, optional = self._plain
        raw: Any = text.strip()
        if optional and not raw:
            return None
        try:
            if get_origin(plain) in (tuple, list, set, frozenset) and not raw.startswith("["):
                raw = [item for part in raw.split(",") if (item := part.strip())]
            elif get_origin(plain) in (tuple, list, set, frozenset, dict) or plain is dict:
                raw = msgspec.json.decode(raw)
            elif get_origin(plain) is Literal and raw not in get_args(plain):
                raw = raw.lower()
            elif plain is bool:
                raw = BOOLEANS.get(raw.lower(), raw)
            return self._convert(raw, strict=False)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._refused(where, text) from error

    def take(self, value: Any, where: str) -> Any:
        """The value of a TOML ``value``."""
        try:
            return self._convert(value, strict=True)
        except (msgspec.ValidationError, ValueError) as error:
            shown = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str)
            text = shown if isinstance(shown, str) else shown.decode()
            raise self._refused(where, text) from error

    def shown(self, value: Any) -> str:
        """The value as text, hidden when it is a secret."""
        if value is None or value in ("", ()):
            return ""
        if self.secret:
            return HIDDEN
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, tuple | list | set | frozenset):
            return ",".join(str(item) for item in value)
        if isinstance(value, dict | msgspec.Struct):
            return msgspec.json.encode(value).decode()
        return f"{value:g}" if isinstance(value, float) else str(value)

    def _convert(self, value: Any, *, strict: bool) -> Any:
        plain, optional = self._plain
        kind = Annotated[plain, self.meta] | None if optional else self.type
        converted = msgspec.convert(value, kind, strict=strict, dec_hook=_path_hook)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError("not finite")
        return converted

    def _refused(self, where: str, text: str) -> SettingError:
        return SettingError(
            where, HIDDEN if self.secret else text, f"{self.name} is {self.allowed}"
        )


def _path_hook(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        try:
            return Path(value).expanduser()
        except RuntimeError:
            raise ValueError("there is no such home directory") from None
    raise ValueError(f"a {kind.__name__} is wanted")


def _rooms() -> dict[str, type[msgspec.Struct]]:
    """The type of each of the file's tables."""
    fixed = get_type_hints(Settings)
    del fixed["recognizer"]
    return {**fixed, **recognizer_rooms()}


def _collect() -> tuple[Setting, ...]:
    table: dict[str, Setting] = {}
    for section, room in _rooms().items():
        annotations = get_type_hints(room, include_extras=True)
        defaults = room()
        for field in room.__struct_fields__:
            if get_origin(annotations[field]) is not Annotated:
                raise TypeError(f"{room.__name__}.{field} has no option(...)")
            if field in table:
                raise TypeError(f"{field} is a setting of {table[field].section} and of {section}")
            table[field] = Setting(section, field, annotations[field], getattr(defaults, field))
    return tuple(table.values())


TABLE: tuple[Setting, ...] = _collect()
BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in TABLE}


class Argument(msgspec.Struct, frozen=True):
    """A setting given on the command line: the option as it was written, and its text."""

    option: str
    text: str


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, the source of each (by field name), and what may be a mistake."""

    settings: Settings
    sources: Mapping[str, str]
    warnings: Sequence[str] = ()

    def value(self, setting: Setting) -> Any:
        """The value in force."""
        return getattr(self.settings.room(setting.section), setting.name)


def load(
    *,
    arguments: Mapping[str, Argument] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Loaded:
    """Settings from all sources.

    ``arguments`` is keyed by field name. Without ``file``, ``$EDGESCRIBE_CONFIG`` names it, else
    ``edgescribe.toml`` of the working directory is read if it exists. An environment variable that
    is set but empty counts as not set.

    Raises ``SettingError`` with the name as the source spells it, the value and what is allowed.
    """
    environment = environment or {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {setting.name: "default" for setting in TABLE}

    path, content = _read_file(file, environment)
    for setting, value, where in _file_settings(path, content):
        values[setting.name] = setting.take(value, where)
        sources[setting.name] = f"file {path}"
    for setting in TABLE:
        for variable in setting.variables:
            if text := environment.get(variable, "").strip():
                values[setting.name] = setting.parse(text, variable)
                sources[setting.name] = f"environment {variable}"
                break
    for name, argument in (arguments or {}).items():
        values[name] = BY_NAME[name].parse(argument.text, argument.option)
        sources[name] = f"command line {argument.option}"

    rooms: dict[str, dict[str, Any]] = {section: {} for section in _rooms()}
    for name, value in values.items():
        rooms[BY_NAME[name].section][name] = value
    built: dict[str, Any] = {section: kind(**rooms[section]) for section, kind in _rooms().items()}
    recognizer = {section: built.pop(section) for section in recognizer_rooms()}
    return Loaded(
        settings=Settings(**built, recognizer=recognizer),
        sources=sources,
        warnings=_unknown_variables(environment),
    )


def parse_assignment(text: str) -> tuple[str, Argument]:
    """``name=value`` of ``--set`` as an entry of ``arguments``; raises ``SettingError``."""
    name, separator, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not separator:
        raise SettingError("--set", text, "write it as name=value")
    if name not in BY_NAME:
        raise SettingError("--set", name, "there is no such setting" + _hint(name, BY_NAME))
    return name, Argument(f"--set {name}", value)


def _read_file(file: Path | None, environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    named_by = "--config" if file else FILE_VARIABLE
    wanted = file or (Path(name) if (name := environment.get(FILE_VARIABLE)) else None)
    path = wanted or Path(DEFAULT_FILE)
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if wanted is None:
            return path, {}
        raise SettingError(named_by, str(path), "the file does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingError(
            named_by if wanted else DEFAULT_FILE, str(path), f"cannot read it: {reason}"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingError(
            named_by if wanted else DEFAULT_FILE, str(path), f"it is not TOML: {error}"
        ) from error


def _file_settings(path: Path, content: Mapping[str, Any]) -> list[tuple[Setting, Any, str]]:
    sections = {setting.section for setting in TABLE}
    found: list[tuple[Setting, Any, str]] = []
    for section, fields in content.items():
        if section not in sections or not isinstance(fields, dict):
            where = f"{path}: {section}" if not isinstance(fields, dict) else f"{path}: [{section}]"
            known = BY_NAME.get(section)
            hint = f"; write it in [{known.section}]" if known else _hint(section, sections)
            raise SettingError(where, _brief(fields), "there is no such table" + hint)
        for name, value in fields.items():
            setting = BY_NAME.get(name)
            if setting is None or setting.section != section:
                hint = (
                    f"; it belongs in [{setting.section}]"
                    if setting
                    else _hint(name, [entry.name for entry in TABLE if entry.section == section])
                )
                raise SettingError(
                    f"{path}: [{section}] {name}", _brief(value), "there is no such setting" + hint
                )
            found.append((setting, value, f"{path}: [{section}] {name}"))
    return found


def _brief(value: Any) -> str:
    """Enough of an unknown entry to find it; never its text, which may be a misplaced secret."""
    return "{…}" if isinstance(value, dict) else "…"


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = {variable for setting in TABLE for variable in setting.variables} | FOREIGN_VARIABLES
    return [
        f"{name} is set, but there is no such setting{_hint(name, known)}"
        for name in sorted(environment)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    ]


def _hint(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
