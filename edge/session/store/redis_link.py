"""The connection to Redis or Valkey: URL, scripts, deadlines, and coming back after a loss."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as SlowError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_never, wait_random_exponential

from edge.errors import SettingError, StoreBusy, StoreUnavailable
from edge.session.store.interface import Durability, new_epoch
from edge.session.store.redis_copies import Copies, check_log
from edge.session.store.redis_together import Together

TRANSIENT = (
    *(LostError, SlowError, OSError, BusyLoadingError, ReadOnlyError),
    *(ClusterDownError, TryAgainError),
)
MAX_AT_ONCE = 64
MAX_IN_FLIGHT = 5000
MAX_TOGETHER = 32
COMMON = "common"
RECORD_SCRIPTS = ("put", "get")
ALONE = ("due", "move_due")


class Script:
    """A script of the folder ``lua``, with what it shares with the others."""

    def __init__(self, name: str) -> None:
        parts = [name] if name in ALONE else [COMMON, name]
        if name in RECORD_SCRIPTS:
            parts.insert(1, "record")
        folder = files("edge.session.store") / "lua"
        self.source = "".join((folder / f"{part}.lua").read_text("ascii") for part in parts)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Sends scripts and commands; at most ``MAX_AT_ONCE`` at a time, the others wait."""

    def __init__(self, url: str, durability: Durability, deadline_s: float) -> None:
        self._url = url
        self._deadline_s = deadline_s
        self._in_flight = 0
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self.durability = durability
        self.is_cluster = "+cluster" in urlsplit(url).scheme
        self._scripts: dict[str, Script] = {}
        self._copies: Copies | None = None
        self.client: Any = None

    async def open(self) -> None:
        """Connect once, so that a wrong address is told at the start."""
        self.client = connect(self._url, self._deadline_s)
        self._together = Together(self.client, self._room, 1 if self.is_cluster else MAX_TOGETHER)
        await self.call(self._look)

    async def close(self) -> None:
        if self._copies is not None:
            await self._copies.close()
        if self.client is None:
            return
        await self._together.close()
        await self.client.aclose()
        pool = getattr(self.client, "connection_pool", None)
        if (manager := getattr(pool, "sentinel_manager", None)) is not None:
            for sentinel in manager.sentinels:
                await sentinel.aclose()

    async def _look(self) -> None:
        if self.is_cluster:
            await self.client.initialize()
        else:
            await self.client.ping()
        if self.durability != "full":
            return
        if not self.is_cluster:
            self._copies = Copies(self.client, self._deadline_s / 2)
            await check_log(self.client)
            return
        for node in self.client.get_primaries():
            await check_log(self.client, target_nodes=node)

    async def run(
        self, name: str, keys: Sequence[str], *args: Any, repeat: bool = True, shown: bool = False
    ) -> Any:
        """Run a script that knows of durability and epochs.

        ``repeat`` says that doing it twice is doing it once. ``shown`` says that somebody will
        rely on the answer (``ok``, …, the server's run): with full durability it is held back
        until a replica has all it tells of, if the server has one then.
        """
        args = (self.durability, new_epoch(), *args)

        async def work() -> Any:
            answer = await self._script(name, keys, args)
            if shown and self._copies is not None and answer[0] == b"ok":
                await self._copies.confirm(answer[-1].decode())
            return answer

        return await self.call(work, repeat=repeat)

    async def index(self, name: str, key: str, *args: Any) -> Any:
        """Run a script that knows of nothing but the index it is given."""
        return await self.call(lambda: self._script(name, [key], args))

    async def _script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = Script(name)
        try:
            return await self._together.run(script.sha, keys, args)
        except NoScriptError:
            async with self._room:
                return await self.client.eval(script.source, len(keys), *keys, *args)

    async def command(self, name: str, *args: Any, repeat: bool = True, **options: Any) -> Any:
        """One command of the server, by the name of the client's method."""

        async def work() -> Any:
            async with self._room:
                return await getattr(self.client, name)(*args, **options)

        return await self.call(work, repeat=repeat)

    async def each(self, name: str, keys: Sequence[str], **options: Any) -> list[Any]:
        """A reading command of each of many keys, a few at a time: the loop has other work."""
        answers: list[Any] = []
        for first in range(0, len(keys), MAX_TOGETHER):
            some = keys[first : first + MAX_TOGETHER]
            answers += await self.call(partial(self._each, name, some, options))
        return answers

    async def _each(self, name: str, keys: Sequence[str], options: dict[str, Any]) -> Sequence[Any]:
        async with self._room:
            pipeline = self.client.pipeline(transaction=False)
            for key in keys:
                getattr(pipeline, name)(key, **options)
            answers: Sequence[Any] = await pipeline.execute()
            return answers

    async def call(self, work: Callable[[], Awaitable[Any]], *, repeat: bool = True) -> Any:
        """Do it within the deadline, again while the server cannot be reached (``repeat``)."""
        if self._in_flight >= MAX_IN_FLIGHT:
            raise StoreBusy(f"{MAX_IN_FLIGHT} operations wait for the session store")
        self._in_flight += 1
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(self._deadline_s):
                try:
                    return await work()
                except TRANSIENT:
                    if not repeat:
                        raise
                return await again(work)
        except (TimeoutError, RedisError, OSError) as error:
            what = type(error).__name__ if isinstance(error, TRANSIENT) else str(error)
            host = urlsplit(self._url).netloc.rpartition("@")[2]
            raise StoreUnavailable(
                f"the session store at {host} did not do what was asked ({what})"
            ) from error
        finally:
            self._in_flight -= 1
            # asyncio.wait_for, which the client uses, loses a cancellation before Python 3.12.
            if task and task.cancelling() > cancelling:
                raise asyncio.CancelledError


async def again(work: Callable[[], Awaitable[Any]]) -> Any:
    """Try until it works; the caller has the deadline."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TRANSIENT),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        stop=stop_never,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await work()
    raise AssertionError("tenacity stops only with an error")


def connect(url: str, deadline_s: float) -> Any:
    """A client for a URL; nothing is sent yet. ``SettingError`` says what a URL may look like."""
    parts = urlsplit(url)
    secure, _, form = parts.scheme.partition("+")
    options: dict[str, Any] = {
        "socket_connect_timeout": min(deadline_s, 2.0),
        "health_check_interval": 0,
        # What may be repeated is decided here, per call, and not by the client.
        "retry": Retry(NoBackoff(), 0),
    }
    if not form:
        return Redis.from_url(url, **options)
    if secure == "rediss":
        options["ssl"] = True
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    try:
        hosts = [host_and_port(item) for item in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        raise SettingError("EDGESCRIBE_STORE", parts.scheme, "host:port,host:port") from None
    if form == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]
        return RedisCluster(startup_nodes=nodes, **options)
    service, _, database = parts.path.strip("/").partition("/")
    make: Any = Sentinel
    sentinel = make(hosts, sentinel_kwargs={"socket_timeout": 1.0}, **options)
    return sentinel.master_for(service or "mymaster", db=int(database or 0))


def host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
