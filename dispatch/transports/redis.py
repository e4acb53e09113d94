"""``redis``: entries of a Redis stream, one field each for the envelope's members."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dispatch.errors import Unreachable
from dispatch.interface import Transport
from dispatch.messages import Envelope


class RedisTransport(Transport):
    """Adds messages in one transaction, so that all of a batch are there or none."""

    def __init__(self, url: str, stream: str = "dispatch", deadline_s: float = 10.0) -> None:
        self._redis = Redis.from_url(url)
        self._stream = stream
        self._deadline_s = deadline_s

    async def close(self) -> None:
        await self._redis.aclose()

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._redis.pipeline(transaction=True) as pipeline,
            ):
                for envelope in envelopes:
                    pipeline.xadd(
                        self._stream,
                        {
                            "id": envelope.message_id,
                            "session": envelope.session,
                            "body": envelope.body,
                            "attempt": envelope.attempt,
                            "epoch": envelope.epoch,
                            "enqueued_ms": envelope.enqueued_ms,
                        },
                    )
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable(f"the server did not take it: {type(error).__name__}") from error
        return len(envelopes)
