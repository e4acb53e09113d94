"""The room of the dispatcher: finished transcripts on their way to consumers outside the gateway.

Comes in: rows of an ``Outbox`` (``dispatch.outbox``), each the encoded message of one final.
Goes out: the same messages, at least once and in order per session, through one of
``dispatch.transports``. It imports nothing of ``edge`` or ``router``; anybody may call it.
"""

from dispatch.consumer import Consumer, ConsumerPlan
from dispatch.dispatcher import Dispatcher, Retrying
from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import DispatcherTranscriptionMessage, Envelope, RPCResponse
from dispatch.outbox import Outbox, Row
from dispatch.service import TranscriptionDispatcher

__all__ = [
    "Consumer",
    "ConsumerPlan",
    "DispatchError",
    "Dispatcher",
    "DispatcherTranscriptionMessage",
    "Envelope",
    "Outbox",
    "RPCResponse",
    "Refused",
    "Retrying",
    "Row",
    "TranscriptionDispatcher",
    "Transport",
    "Unreachable",
]
