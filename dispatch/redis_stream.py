"""Where messages lie in Redis or Valkey (6.2 or newer); transport and consumer agree on it here.

A session belongs to one of ``PARTITIONS`` partitions, by CRC-32 of its name. All keys of partition
``n`` have the hash tag ``{<prefix>:<n>}``, so that each partition is in one slot of a Cluster:

``{<prefix>:<n>}:messages``
    Stream of waiting messages; an entry's fields are the ``FIELDS`` of an envelope.
``{<prefix>:<n>}:seen``
    Sorted set of ``<epoch>/<message id>`` by time of arrival (ms): what was added already and is
    not added again. It forgets after ``SEEN_FOR_S``, or beyond ``MAX_SEEN`` the oldest.
``{<prefix>:<n>}:dead``
    Stream of what a consumer gave up: ``FIELDS`` and ``reason``, ``died_ms``. Kept four days.
``{<prefix>:<n>}:lease:<group>``
    Owner of the partition; a string with a time to live.

Each partition's stream has the consumer group ``GROUP``, created at ``0``. One consumer at a time
reads a partition, under the lease (``SET NX PX``, renewed while it works): it takes over what its
predecessors read and did not acknowledge (``XAUTOCLAIM`` with idle 0), then reads on with ``>``,
and acknowledges (``XACK``) whatever was delivered, refused for good, or known. So the messages of
a session are delivered in the order in which they were added, by however many consumers. An entry
that every group has acknowledged stays for the retention that the transport was given, then
``trim`` takes it; one that any group has not acknowledged stays, as does all without a group.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from dispatch.messages import Envelope

PREFIX = "edgescribe:dispatch"
PARTITIONS = 16
GROUP = "dispatchers"
DEAD_LETTERS_KEPT_S = 4 * 86400.0
SEEN_FOR_S = 3600.0
MAX_SEEN = 20_000

ID = "id"
SESSION = "session"
BODY = "body"
ATTEMPT = "attempt"
EPOCH = "epoch"
ENQUEUED_MS = "enqueued_ms"
FIELDS = (ID, SESSION, BODY, ATTEMPT, EPOCH, ENQUEUED_MS)
REASON = "reason"
DIED_MS = "died_ms"


class Partition(msgspec.Struct, frozen=True):
    """The names of one partition's keys."""

    number: int
    prefix: str = PREFIX

    @property
    def messages(self) -> str:
        return self._key("messages")

    @property
    def seen(self) -> str:
        return self._key("seen")

    @property
    def dead(self) -> str:
        return self._key("dead")

    def lease(self, group: str = GROUP) -> str:
        return self._key(f"lease:{group}")

    def _key(self, name: str) -> str:
        return f"{{{self.prefix}:{self.number}}}:{name}"


def partitions(prefix: str = PREFIX) -> list[Partition]:
    """All of them."""
    return [Partition(number, prefix) for number in range(PARTITIONS)]


def partition_of(session: str, prefix: str = PREFIX) -> Partition:
    """Where the messages of a session are."""
    return Partition(zlib.crc32(session.encode()) % PARTITIONS, prefix)


def fields_of(envelope: Envelope) -> list[str | bytes | int]:
    """An entry: names and values by turns."""
    values: tuple[str | bytes | int, ...] = (
        envelope.message_id,
        envelope.session,
        envelope.body,
        envelope.attempt,
        envelope.epoch,
        envelope.enqueued_ms,
    )
    entry: list[str | bytes | int] = []
    for pair in zip(FIELDS, values, strict=True):
        entry += pair
    return entry


def envelope_of(fields: Mapping[bytes, bytes]) -> Envelope:
    """What an entry holds; ``ValueError`` when it is none of ours."""
    try:
        return Envelope(
            fields[ID.encode()].decode(),
            fields[SESSION.encode()].decode(),
            fields[BODY.encode()],
            int(fields[ATTEMPT.encode()]),
            fields[EPOCH.encode()].decode(),
            int(fields[ENQUEUED_MS.encode()]),
        )
    except KeyError as missing:
        raise ValueError(f"the entry has no field {missing}") from None


class Script:
    """A Lua script, sent once and then called by its digest."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Any, keys: Sequence[str], *args: Any) -> Any:
        """What the script returns; errors are those of the client."""
        try:
            return await client.evalsha(self._sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(self._source, len(keys), *keys, *args)


_trim = Script("""
local now = redis.call('TIME')
local ms, seq = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1], 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return 0 end
for _, flat in ipairs(groups) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  local first, after = group['last-delivered-id'], 1
  if group['pending'] > 0 then
    first, after = redis.call('XPENDING', KEYS[1], group['name'])[2], 0
  end
  local a, b = string.match(first, '(%d+)-(%d+)')
  a, b = tonumber(a), b + after
  if a < ms or (a == ms and b < seq) then ms, seq = a, b end
end
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', math.max(ms, 0), seq))
""")


async def trim(client: Any, partition: Partition, kept_s: float) -> int:
    """Take entries that every group acknowledged and that are older than that; how many."""
    return int(await _trim.run(client, [partition.messages], int(kept_s * 1000)))


def connect(url: str, deadline_s: float = 10.0) -> Any:
    """A client; nothing is sent yet. ``ValueError`` for a URL it cannot be made for.

    ``redis://`` and ``rediss://`` as the client library has them; besides
    ``redis+sentinel://host:port,…/service/database`` and ``redis+cluster://host:port,…``.
    """
    parts = urlsplit(url)
    scheme, _, form = parts.scheme.partition("+")
    options: dict[str, Any] = {
        "socket_connect_timeout": min(deadline_s, 2.0),
        # Retries are those of the dispatcher, and of nobody else.
        "retry": Retry(NoBackoff(), 0),
    }
    if not form:
        try:
            return Redis.from_url(url, **options)
        except ValueError:
            # The library's words may hold a part of the password.
            raise ValueError("it must be redis://host:port/database, or rediss://…") from None
    if scheme not in ("redis", "rediss") or form not in ("sentinel", "cluster"):
        raise ValueError("it must begin with redis://, redis+sentinel:// or redis+cluster://")
    options |= {"ssl": True} if scheme == "rediss" else {}
    options |= {"username": unquote(parts.username)} if parts.username else {}
    options |= {"password": unquote(parts.password)} if parts.password else {}
    hosts = [_host_and_port(item) for item in parts.netloc.rpartition("@")[2].split(",")]
    if form == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]
        return RedisCluster(startup_nodes=nodes, **options)
    service, _, database = parts.path.strip("/").partition("/")
    make: Any = Sentinel
    sentinel = make(hosts, sentinel_kwargs={"socket_timeout": 1.0}, **options)
    return sentinel.master_for(service or "mymaster", db=int(database or 0))


async def disconnect(client: Any) -> None:
    """Close what ``connect`` opened."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("it must name its servers as host:port,host:port")
    return host.strip("[]"), int(port)
