"""The one interface of object stores.

Every method is safe to call from any task of the event loop that opened the store, and may be
cancelled: a body is then stored as a whole or not at all. Engines raise ``ObjectsUnavailable`` when
they cannot answer within their deadline; a write may then have happened.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

from edge.errors import ObjectError

MOST_KEY = 900
"""Characters of a key; services take 1024 bytes, their own prefix included."""
_KEY = re.compile(r"(?!(.*/)?\.{1,2}(/|$))[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")


class ObjectStore(ABC):
    """Bodies under keys. A key is a path of parts with slashes between them, and never a folder of
    another key."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Make ready; raises ``ObjectError`` with what to do about it."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked for (bounded) and let go."""

    @abstractmethod
    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] = {},
        only_new: bool = False,
    ) -> None:
        """Store a body, durable when this returns, in the place of what the key had.

        Raises ``ObjectExists`` when it is to be new and the key has one.
        """

    @abstractmethod
    async def get(self, key: str) -> bytes:
        """The body of a key; raises ``ObjectMissing``."""

    @abstractmethod
    async def find(self, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
        """Keys that begin with ``prefix`` and follow ``after``, in the order of their bytes."""

    @abstractmethod
    async def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are fine."""

    async def remove_all(self, prefix: str) -> int:
        """Remove all objects whose keys begin with ``prefix``; how many there were."""
        removed = 0
        while keys := await self.find(prefix):
            await self.remove(keys)
            removed += len(keys)
        return removed


def check_key(key: str) -> None:
    """Raise ``ObjectError`` for what is no key with every engine."""
    if len(key) > MOST_KEY or not _KEY.fullmatch(key):
        raise ObjectError(
            f"{key[:MOST_KEY]!r} is no key: its parts hold A-Z a-z 0-9 . _ ~ - and are not . or .."
        )
