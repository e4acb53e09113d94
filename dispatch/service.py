"""What a dispatcher's author writes: a class with one method."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dispatch.messages import DispatcherTranscriptionMessage, RPCResponse


class TranscriptionDispatcher(ABC):
    """Subclass it and implement ``dispatch``; a message may come again after a failure."""

    @abstractmethod
    async def dispatch(self, message: DispatcherTranscriptionMessage) -> RPCResponse:
        """Take one message; ``success=False`` or an exception asks for it again."""
