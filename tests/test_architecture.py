"""The walls of ARCHITECTURE.md stand: who imports whom, and who touches the environment."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = ("_native", "bench", "dispatch", "edge", "router", "tests")
SHIPPED = ("_native", "dispatch", "edge", "router")

COMMON = (
    "edge.beat",
    "edge.errors",
    "edge.logs",
    "edge.option",
    "edge.parent",
    "edge.tracing",
    "edge.version",
)
"""What any room of ``edge`` may use; they use nothing but each other."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "_native": (),
    "dispatch": (),
    "router": (),
    "edge": ("edge.cli.main",),
    **dict.fromkeys(COMMON, COMMON),
    "edge.metrics": (),
    "edge.transport": ("_native", *COMMON),
    "edge.ingest": (
        "_native",
        "edge.audio.container",
        "edge.audio.pcm",
        "edge.meeting",
        "edge.session.attachment",
        "edge.session.entries",
        "edge.session.interface",
        "edge.session.ledger",
        "edge.session.live_track",
        "edge.session.names",
        "edge.session.store",
        "edge.transport.interface",
        *COMMON,
    ),
    "edge.session": (
        "dispatch.messages",
        "edge.asr",
        "edge.audio",
        "edge.ingest.counts",
        "edge.ingest.interface",
        "edge.metrics",
        "edge.transport.interface",
        *COMMON,
    ),
    "edge.meeting": (
        "dispatch.messages",
        "edge.asr.batch",
        "edge.asr.breaker",
        "edge.asr.interface",
        "edge.objects.interface",
        "edge.session.claim",
        "edge.session.entries",
        "edge.session.names",
        "edge.session.store",
        *COMMON,
    ),
    "edge.dispatching": (
        "dispatch",
        "edge.metrics",
        "edge.session.store.interface",
        *COMMON,
    ),
    "edge.objects": ("edge.session.store.sqlite_thread", *COMMON),
    "edge.auth": ("edge.session.store.interface", "edge.transport.interface", *COMMON),
    "edge.audio": ("_native", *COMMON),
    "edge.asr": ("_native", "edge.audio", *COMMON),
    "edge.api": (
        "edge.ingest.file",
        "edge.ingest.words",
        "edge.meeting",
        "edge.objects.interface",
        "edge.server.board",
        "edge.session.entries",
        "edge.session.names",
        "edge.session.overview",
        "edge.session.stability",
        "edge.session.store.interface",
        "edge.session.store.presence",
        "edge.web",
        *COMMON,
    ),
    "edge.telemetry": COMMON,
    "edge.web": (),
    "edge.server": (
        "_native",
        "dispatch.errors",
        "dispatch.messages",
        "edge.api",
        "edge.asr.embedded",
        "edge.asr.registry",
        "edge.auth",
        "edge.compose",
        "edge.dispatching.deliveries",
        "edge.ingest.interface",
        "edge.meeting.meetings",
        "edge.metrics",
        "edge.session.gateway",
        "edge.session.granted",
        "edge.session.interface",
        "edge.session.overview",
        "edge.session.store.interface",
        "edge.session.upkeep",
        "edge.settings",
        "edge.telemetry.otlp",
        "edge.transport",
        "router",
        *COMMON,
    ),
    "edge.settings": (
        "edge.asr.registry",
        "edge.asr.settings",
        "edge.audio.settings",
        "edge.auth.settings",
        "edge.demo.settings",
        "edge.dispatching.settings",
        "edge.ingest.settings",
        "edge.meeting.settings",
        "edge.objects.settings",
        "edge.server.settings",
        "edge.session.dump",
        "edge.session.retention",
        "edge.session.settings",
        "edge.session.store.settings",
        "edge.telemetry.settings",
        "edge.transport.settings",
        *COMMON,
    ),
    "edge.compose": (
        "edge.api",
        "edge.asr",
        "edge.auth",
        "edge.dispatching",
        "edge.ingest",
        "edge.meeting",
        "edge.objects",
        "edge.server.boot",
        "edge.session",
        "edge.settings",
        "edge.telemetry",
        *COMMON,
    ),
    "edge.demo": ("_native", "edge.asr.embedded", *COMMON),
    "edge.cli": ("_native", "dispatch", "edge"),
}
"""What the modules under each name may import of this project, beside their own room."""

ENVIRONMENT = {
    "edge/cli/arguments.py": "hands the environment to the settings",
    "edge/cli/replay.py": "headers that do not belong on a command line",
    "edge/server/launcher.py": "sets what prometheus_client and Sanic read",
    "edge/asr/embedded/runtime.py": "sets what onnxruntime reads",
}
"""The only shipped modules that touch the process's environment, and why."""


def sources(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python module and stub of some packages, by its path in the repository."""
    for package in packages:
        for path in sorted((REPOSITORY / package).rglob("*.py*")):
            if path.suffix in (".py", ".pyi"):
                yield path.relative_to(REPOSITORY), ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    """The module of a file."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.Module) -> Iterator[str]:
    """Every name of this project that a module imports, at its top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in OURS)


def is_under(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def room_of(module: str) -> str:
    """The longest name of the table that holds a module."""
    return max((room for room in MAY_IMPORT if is_under(module, room)), key=len)


@pytest.mark.parametrize("package", SHIPPED)
def test_rooms_import_only_what_they_may(package: str) -> None:
    trespasses = []
    for path, tree in sources(package):
        room = room_of(dotted(path))
        for name in imports(tree):
            is_inside = room != "edge" and is_under(name, room)
            if not is_inside and not any(is_under(name, door) for door in MAY_IMPORT[room]):
                trespasses.append(f"{path} imports {name}")
    assert trespasses == []


def test_no_permission_to_import_is_left_over() -> None:
    used = {room: set[str]() for room in MAY_IMPORT}
    for path, tree in sources(*SHIPPED):
        used[room_of(dotted(path))].update(imports(tree))
    unused = [
        f"{room} never imports {door}"
        for room, doors in MAY_IMPORT.items()
        for door in doors
        if door not in COMMON and not any(is_under(name, door) for name in used[room])
    ]
    assert unused == []


def test_the_extensions_are_built_on_nothing_of_this_project() -> None:
    for path in (REPOSITORY / "_native").glob("*.p[yx][xd]"):
        words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        named = {line[1] for line in words if line[:1] in (["from"], ["import"], ["cimport"])}
        assert not {name for name in named if name.partition(".")[0] in ("edge", "tests")}, path


def test_only_these_modules_touch_the_environment() -> None:
    found = {
        path.as_posix()
        for path, tree in sources(*SHIPPED)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.alias)
        and (node.attr if isinstance(node, ast.Attribute) else node.name)
        in ("environ", "environb", "getenv", "putenv")
    }
    assert found == set(ENVIRONMENT)


def test_every_package_says_what_comes_in_what_goes_out_and_who_may_call_it() -> None:
    packages = [item for item in sources(*SHIPPED) if item[0].name == "__init__.py"]
    assert {path.parts[0] for path, _ in packages} == set(SHIPPED)
    for path, tree in packages:
        said = " ".join((ast.get_docstring(tree) or "").split())
        for promise in ("Comes in: ", "Goes out: ", " call"):
            assert promise in said, f"{path} does not say: {promise}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path, tree in sources(*SHIPPED) if not ast.get_docstring(tree)]
    assert [path for path in silent if path.suffix == ".py"] == []


def test_every_room_is_on_the_map() -> None:
    table = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (REPOSITORY / "edge").glob("*/__init__.py")}
    assert {room for room in rooms if f"| `edge/{room}` |" not in table} == set()


def test_every_package_is_typed() -> None:
    for package in SHIPPED:
        assert (REPOSITORY / package / "py.typed").is_file()
    extensions = {path.stem for path in (REPOSITORY / "_native").glob("*.pyx")}
    assert {path.stem for path in (REPOSITORY / "_native").glob("*.pyi")} == extensions != set()
