"""The registry that all workers and nodes share, and how each of them follows it.

One stored document holds all entries; its version is compared and set, so that a change is whole
or not at all. Whoever follows asks for it a few times a second and serves a new version at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import msgspec
import structlog

from router.errors import (
    ConfigurationError,
    NameTaken,
    RegistryUnavailable,
    ServiceNotDeployed,
    VersionConflict,
)
from router.loading import service_of
from router.registry import Namespace, check_name
from router.service import Limits, Service

FOLLOW_S = 0.25
"""Between two looks at the stored version; far below the second that is promised."""
STORE_DEADLINE_S = 5.0
RETRY_S = 5.0
"""Between two attempts to start an entry that does not start here."""
ATTEMPTS = 20

T = TypeVar("T")

_log = structlog.get_logger("router.deployments")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is deployed under one name."""

    source: str
    """``module:attribute`` of a Sanic or ASGI application, or an ``http(s)://`` upstream."""
    tags: tuple[str, ...] = ()
    limits: Limits = Limits()
    revision: int = 0
    """The registry's version that brought it: the same source again is a new service."""


Entries = dict[str, dict[str, Entry]]
"""By namespace and name."""


class Stored(msgspec.Struct, frozen=True):
    """The document as the store has it."""

    version: int
    """0 when nothing was ever saved."""
    body: bytes


class RegistryStore(Protocol):
    """Where the registry is kept."""

    async def load(self) -> Stored:
        """The document. Raises ``RegistryUnavailable``."""

    async def save(self, body: bytes, base: int) -> None:
        """Replace version ``base`` by ``body``.

        Raises ``VersionConflict``, ``RegistryUnavailable``.
        """


class MemoryRegistry:
    """A registry of one process, gone with it."""

    def __init__(self) -> None:
        self._stored = Stored(0, b"")

    async def load(self) -> Stored:
        """The document."""
        return self._stored

    async def save(self, body: bytes, base: int) -> None:
        """Replace version ``base`` by ``body``. Raises ``VersionConflict``."""
        if self._stored.version != base:
            raise VersionConflict(f"version {base} is not the newest")
        self._stored = Stored(base + 1, body)


class Deployments:
    """The shared registry as one worker serves it, beside what its code has registered."""

    def __init__(
        self,
        store: RegistryStore,
        namespaces: Mapping[str, Namespace],
        *,
        follow_s: float = FOLLOW_S,
    ) -> None:
        self._store = store
        self._namespaces = namespaces
        self._follow_s = follow_s
        self._served: Entries = {}
        self._own: dict[tuple[str, str], Service] = {}
        """What the code has registered and an entry has replaced: it comes back after that."""
        self._waiting_until_s: dict[tuple[str, str], float] = {}
        self._applying = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.version = -1
        """Of the document that was last applied."""

    async def start(self) -> None:
        """Serve what is stored, and follow it."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def entries(self) -> Entries:
        """All that is deployed, as the store has it."""
        return _decode((await self._load()).body)

    async def deploy(
        self, environment: str, name: str, entry: Entry, *, only_new: bool = False
    ) -> bool:
        """Register or replace; whether the name is new.

        Raises ``ConfigurationError`` for a bad name or namespace, ``NameTaken`` with ``only_new``,
        ``ServiceFailed`` for a source that cannot be loaded.
        """
        space = self._space(environment)
        check_name(name)
        service_of(entry.source)
        was_new = False

        def change(entries: Entries, version: int) -> None:
            nonlocal was_new
            there = entries.setdefault(space, {})
            was_new = name not in there
            if only_new and not was_new:
                raise NameTaken(f"{name!r} is deployed in {environment} already")
            there[name] = msgspec.structs.replace(entry, revision=version)

        await self._change(change)
        return was_new

    async def remove(self, environment: str, name: str) -> None:
        """Take a service away. Raises ``ServiceNotDeployed``, ``ConfigurationError``."""
        space = self._space(environment)

        def change(entries: Entries, version: int) -> None:
            if entries.get(space, {}).pop(name, None) is None:
                raise ServiceNotDeployed(f"{name!r} is not deployed in {environment}")

        await self._change(change)

    def _space(self, environment: str) -> str:
        space = environment.lower()
        if space not in self._namespaces:
            known = ", ".join(sorted(self._namespaces))
            raise ConfigurationError(f"there is no namespace {environment!r}; there are: {known}")
        return space

    async def _change(self, change: Callable[[Entries, int], None]) -> None:
        for _ in range(ATTEMPTS):
            stored = await self._load()
            entries = _decode(stored.body)
            change(entries, stored.version + 1)
            with contextlib.suppress(VersionConflict):
                body = msgspec.json.encode(entries)
                await _answered(self._store.save(body, stored.version))
                await self._look()
                return
        raise VersionConflict("the registry is changed by others all the time; try again")

    async def _load(self) -> Stored:
        return await _answered(self._store.load())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._follow_s)
            try:
                await self._look()
            except Exception as error:
                _log.warning("the registry cannot be read", reason=str(error))

    async def _look(self) -> None:
        async with self._applying:
            stored = await self._load()
            if stored.version != self.version or self._waiting_until_s:
                await self._apply(_decode(stored.body))
                self.version = stored.version

    async def _apply(self, entries: Entries) -> None:
        now_s = asyncio.get_running_loop().time()
        for space, namespace in self._namespaces.items():
            wanted, served = entries.get(space, {}), self._served.setdefault(space, {})
            for name in served.keys() - wanted.keys():
                del served[name]
                own = self._own.pop((space, name), None)
                if own is not None:
                    await namespace.replace(name, own)
                else:
                    with contextlib.suppress(ServiceNotDeployed):
                        await namespace.remove(name)
            for name, entry in wanted.items():
                if served.get(name) == entry:
                    continue
                if self._waiting_until_s.get((space, name), 0.0) > now_s:
                    continue
                self._waiting_until_s.pop((space, name), None)
                own = namespace.find(name) if name not in served else None
                try:
                    await namespace.replace(
                        name, entry.source, limits=entry.limits, tags=entry.tags
                    )
                    served[name] = entry
                    if own is not None:
                        self._own[space, name] = own
                except Exception as error:
                    self._waiting_until_s[space, name] = now_s + RETRY_S
                    _log.error("a service cannot be deployed here", service=name, exc_info=error)
        self._waiting_until_s = {
            key: until_s
            for key, until_s in self._waiting_until_s.items()
            if key[1] in entries.get(key[0], {})
        }


async def _answered(call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(STORE_DEADLINE_S):
            return await call
    except TimeoutError:
        raise RegistryUnavailable(
            f"the registry's store has not answered for {STORE_DEADLINE_S:g} s"
        ) from None


def _decode(body: bytes) -> Entries:
    return msgspec.json.decode(body, type=Entries) if body else {}
