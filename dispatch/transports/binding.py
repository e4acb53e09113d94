"""``binding``: a dispatcher in this process, an object or ``module:attribute``."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from dispatch.errors import DispatchError, Refused, Unreachable
from dispatch.interface import Transport
from dispatch.messages import DispatcherTranscriptionMessage, Envelope, RPCResponse, decode_message


class Binding(Protocol):
    """What is called; ``TranscriptionDispatcher`` is one."""

    async def dispatch(self, message: DispatcherTranscriptionMessage, /) -> RPCResponse: ...


def load(target: str) -> Binding:
    """The object of ``module:attribute``; a class is made without arguments. ``ValueError``."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ValueError(f"{target!r} is not of the form module:attribute")
    found = getattr(importlib.import_module(module), attribute)
    made = found() if isinstance(found, type) else found
    if not callable(getattr(made, "dispatch", None)):
        raise ValueError(f"{target!r} has no method dispatch(message)")
    bound: Binding = made
    return bound


class BindingTransport(Transport):
    """Calls the object for one message after the other.

    It may raise ``Unreachable`` to be asked again later, and ``Refused`` to give a message up.
    """

    def __init__(self, target: str | Binding, deadline_s: float = 10.0) -> None:
        self._binding = load(target) if isinstance(target, str) else target
        self._deadline_s = deadline_s

    async def send(self, envelopes: Sequence[Envelope]) -> int:
        await self._call(envelopes[0])
        return 1

    async def _call(self, envelope: Envelope) -> None:
        try:
            message = decode_message(envelope.body)
        except msgspec.DecodeError as error:
            raise Refused("the message cannot be read", final=True) from error
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._binding.dispatch(message)
        except DispatchError:
            raise
        except TimeoutError as error:
            raise Unreachable(f"no answer within {self._deadline_s:g} s") from error
        except Exception as error:
            raise Refused(f"the dispatcher raised {type(error).__name__}") from error
        if not isinstance(answer, RPCResponse) or not answer.success:
            raise Refused("the dispatcher answered without success")
