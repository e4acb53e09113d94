"""An object store in memory whose outages a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from edge.errors import ObjectExists, ObjectMissing, ObjectsUnavailable
from edge.objects.interface import ObjectStore


class Shelf(ObjectStore):
    """Keeps bodies; while ``is_away`` nothing is answered, while ``hold`` is clear puts wait."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.is_away = False
        self.is_listed = True
        self.hold = asyncio.Event()
        self.hold.set()

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = {},
        only_new: bool = False,
    ) -> None:
        await self.hold.wait()
        self._answer()
        if only_new and key in self.bodies:
            raise ObjectExists(key)
        self.bodies[key] = body
        self.metadata[key] = dict(metadata)

    async def get(self, key: str) -> bytes:
        self._answer()
        if key not in self.bodies:
            raise ObjectMissing(key)
        return self.bodies[key]

    async def find(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        self._answer()
        if not self.is_listed:
            raise ObjectsUnavailable("away")
        keys = sorted(key for key in self.bodies if key.startswith(prefix) and key > after)
        return keys[:limit]

    async def remove(self, keys: Sequence[str]) -> None:
        self._answer()
        for key in keys:
            self.bodies.pop(key, None)

    async def remove_all(self, prefix: str) -> int:
        keys = [key for key in self.bodies if key.startswith(prefix)]
        await self.remove(keys)
        return len(keys)

    def _answer(self) -> None:
        if self.is_away:
            raise ObjectsUnavailable("the object store is away")
