"""How a message lies in Amazon SQS; transport and consumer agree on it here.

The body is the message's JSON. The attributes, all of type ``String``, are the rest of the
envelope (``ATTRIBUTES``); those that are empty are left out, since SQS takes no empty ones. A queue
whose URL ends in ``.fifo`` keeps the order of a session (``MessageGroupId``) and drops what it was
sent again within five minutes (``MessageDeduplicationId``); a standard queue promises neither.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from dispatch.messages import Envelope

MAX_BATCH = 10
MAX_BYTES = 262_144
"""Of all bodies and attributes of a batch, and so of each message."""
MAX_NAME = 128

MESSAGE_ID = "message_id"
SESSION = "session"
EPOCH = "epoch"
ATTEMPT = "attempt"
ENQUEUED_MS = "enqueued_ms"
ATTRIBUTES = (MESSAGE_ID, SESSION, EPOCH, ATTEMPT, ENQUEUED_MS)

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation)
_NOT_XML = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}
"""Characters that SQS refuses and that JSON can write otherwise."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Whose access; with no key it is looked up as AWS's tools do."""

    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""


AMBIENT = Credentials()


def connect(
    region: str,
    endpoint_url: str | None,
    credentials: Credentials = AMBIENT,
    *,
    connections: int,
    read_within_s: float,
) -> AbstractAsyncContextManager[Any]:
    """A client without retries: those are the dispatcher's, and nobody else's."""
    client: AbstractAsyncContextManager[Any] = get_session().create_client(
        "sqs",
        region_name=region,
        endpoint_url=endpoint_url or None,
        aws_access_key_id=credentials.access_key or None,
        aws_secret_access_key=credentials.secret_key or None,
        aws_session_token=credentials.session_token or None,
        config=AioConfig(
            connect_timeout=min(read_within_s, 5.0),
            read_timeout=read_within_s,
            max_pool_connections=connections,
            retries={"total_max_attempts": 1},
        ),
    )
    return client


def is_fifo(queue_url: str) -> bool:
    """Whether the queue keeps order."""
    return queue_url.rstrip("/").endswith(".fifo")


def group_id(session: str) -> str:
    """The session's name if SQS takes it, else its digest."""
    if 0 < len(session) <= MAX_NAME and _NAME_CHARACTERS.issuperset(session):
        return session
    return hashlib.sha256(session.encode()).hexdigest()


def deduplication_id(envelope: Envelope) -> str:
    """The same in every redelivery of a message, and in no other message."""
    return hashlib.sha256(f"{envelope.epoch}/{envelope.message_id}".encode()).hexdigest()


def entry_of(envelope: Envelope, *, fifo: bool) -> dict[str, Any]:
    """An entry of ``SendMessageBatch``, without its ``Id``."""
    values = (
        envelope.message_id,
        envelope.session,
        envelope.epoch,
        str(envelope.attempt),
        str(envelope.enqueued_ms),
    )
    entry: dict[str, Any] = {
        "MessageBody": envelope.body.decode().translate(_NOT_XML),
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value}
            for name, value in zip(ATTRIBUTES, values, strict=True)
            if value
        },
    }
    if fifo:
        entry["MessageGroupId"] = group_id(envelope.session)
        entry["MessageDeduplicationId"] = deduplication_id(envelope)
    return entry


def size_of(entry: Mapping[str, Any]) -> int:
    """What the entry counts for in ``MAX_BYTES``."""
    attributes = sum(
        len(name) + len(value["DataType"]) + len(value["StringValue"].encode())
        for name, value in entry["MessageAttributes"].items()
    )
    return attributes + len(entry["MessageBody"].encode())


def envelope_of(message: Mapping[str, Any]) -> Envelope:
    """Of a message of ``ReceiveMessage`` with all its attributes; ``ValueError`` if not ours."""
    found = {
        name: value.get("StringValue", "")
        for name, value in message.get("MessageAttributes", {}).items()
    }
    try:
        return Envelope(
            found[MESSAGE_ID],
            found[SESSION],
            message["Body"].encode(),
            int(found[ATTEMPT]),
            found.get(EPOCH, ""),
            int(found[ENQUEUED_MS]),
        )
    except KeyError as missing:
        raise ValueError(f"the message has no {missing}") from None
