"""One speaker's turns, numbered through whatever happens to recognizers and connections.

Comes in: what recognizers say, in their own words and as transcripts. Goes out: the messages of the
plain socket. ``Turns`` belongs to the speaker's tracks and outlives connections; a ``Teller`` to
one connection. No input or output of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import msgspec

from edge.ingest.listen_messages import (
    Connected,
    Logged,
    amended,
    encode_message,
    member,
    seconds,
    turn_of,
    turn_of_entry,
    words_of,
)
from edge.session.entries import FinalEntry
from edge.session.interface import EngineMessage, SpokenLine

MOST_OPEN = 64
"""Turns without an end that are remembered; the oldest are forgotten."""
MOST_ENDED = 1000
"""Turns that have ended and are remembered with their numbers."""
Said = tuple[str, int]
"""What tells a final from all others: its item, and the Unix ms of its first interim."""


class Turns(msgspec.Struct, kw_only=True):
    """Which numbers turns have. A turn that a recognizer leaves open is told on by the next one."""

    next: int = 0
    """The number of the turn that begins next."""
    request_id: str = ""
    """The service's name for its connection; empty until there was one."""
    voice: str = ""
    """The recognizer whose own messages are sent; empty while transcripts are put in its shape."""
    carried: int | None = None
    """The turn that an earlier recognizer left open: this one tells it on, first of all."""
    connections: int = 0
    """Recognizer connections so far."""
    open: dict[str, int] = {}
    """Turns that have begun, by the item of their transcripts."""
    begun: int | None = None
    """The turn that the service itself has begun."""
    begun_there: int = 0
    """The service's own number of that turn."""
    ending: EngineMessage | None = None
    """The end of a turn whose final transcript follows."""
    ended: dict[Said, int] = {}
    """Numbers of the last turns that have ended: they may be told again."""

    def connected(self, message: EngineMessage) -> None:
        """A recognizer begins: it tells again what the one before had left open."""
        self.voice = message.provider if message.body else ""
        self.request_id = (member(message.body, "request_id") if message.body else "") or str(
            uuid4()
        )
        self.connections += 1
        left = [*self.open.values(), *(() if self.begun is None else (self.begun,))]
        self.carried = min(left, default=None)
        self.begun = None

    def number_of(self, message: EngineMessage) -> int:
        """Our number of the turn that a service speaks of, be it begun or to come."""
        if self.begun is not None and message.turn == self.begun_there:
            return self.begun
        return self.next if self.carried is None else self.carried

    def begin_there(self, message: EngineMessage) -> None:
        """A service has begun a turn."""
        self.begun, self.begun_there = self.number_of(message), message.turn
        self.next = max(self.next, self.begun + 1)

    def foreign(self) -> int:
        """The number of a turn that somebody else heard, and that is over."""
        self.next += 1
        return self.next - 1

    def begin(self, item: str) -> tuple[int, bool]:
        """The number of an item's turn, and whether it begins now."""
        if item in self.open:
            return self.open[item], False
        speaks = self.voice and self.begun is not None
        number = self.begun if speaks and self.begun is not None else self.next
        if len(self.open) >= MOST_OPEN:
            del self.open[next(iter(self.open))]
        self.open[item] = number
        self.next = max(self.next, number + 1)
        return number, True

    def end(self, number: int) -> None:
        """A turn is over."""
        self.next = max(self.next, number + 1)
        self.open = {item: other for item, other in self.open.items() if other != number}
        if self.begun == number:
            self.begun = None
        if self.carried == number:
            self.carried = None

    def end_of(self, line: SpokenLine) -> int:
        """The number of the turn that a final ends."""
        if self.ending is not None:
            number = self.number_of(self.ending)
        else:
            number, _ = self.begin(line.transcript.item_id)
        self.end(number)
        remember(self.ended, said(line), number)
        return number

    def keep(self, line: SpokenLine) -> None:
        """A turn ends while no client is there."""
        self.end_of(line)
        self.ending = None


class Teller:
    """Puts in words what one connection hears; each method gives the messages to be sent now.

    A service's messages go out as they came. Only numbers that would repeat or contradict what this
    connection was told are changed: after a reconnect turns, messages and seconds of audio count
    on, and a turn that was begun is not begun again.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._sequence = 0
        self._told: dict[Said, int] = {}
        """Ends of turns that this connection has been sent, with their numbers."""

    @property
    def is_connected(self) -> bool:
        """Whether the client has been told that a recognizer is there."""
        return self._sequence > 0

    def greet(self) -> Iterator[bytes]:
        """The first message, if a recognizer was there before this connection."""
        if self._turns.request_id and not self.is_connected:
            yield self._hello()

    def engine(self, message: EngineMessage) -> Iterator[bytes]:
        """What a recognizer's service says."""
        turns = self._turns
        yield from self._end_unsaid()
        if message.kind == "Connected":
            turns.connected(message)
            if not self.is_connected:
                yield self._as_it_came(message, {}) if message.body else self._hello()
            return
        number = turns.number_of(message)
        has_begun = number in (turns.begun, turns.carried) or number in turns.open.values()
        if message.kind == "EndOfTurn":
            if message.is_blank:
                turns.end(number)
                yield self._turn(message, number, {"text": ""})
            else:
                turns.begin_there(message)
                turns.ending = message
            return
        if message.kind == "StartOfTurn" or not message.is_blank:
            turns.begin_there(message)
        again = has_begun and message.kind == "StartOfTurn"
        yield self._turn(message, number, {"event": "Update"} if again else {})

    def interim(self, line: SpokenLine) -> Iterator[bytes]:
        """The text so far of a turn; a service that speaks for itself has said it already."""
        number, begins = self._turns.begin(line.transcript.item_id)
        if line.transcript.provider != self._turns.voice:
            yield from self._rendered(line, "StartOfTurn" if begins else "Update", number)

    def final(self, line: SpokenLine) -> Iterator[bytes]:
        """The end of a turn; one that the service did not tell is told in its shape."""
        turns = self._turns
        number, ending = turns.end_of(line), turns.ending
        turns.ending = None
        remember(self._told, said(line), number)
        text = line.transcript.text
        if ending is None or ending.provider != line.transcript.provider:
            yield from self._rendered(line, "EndOfTurn", number)
        elif text.strip() == member(ending.body, "transcript").strip():
            yield self._turn(ending, number, {"text": text})
        else:
            words = words_of(text, line.transcript.confidence)
            yield self._turn(ending, number, {"transcript": text, "words": words, "text": text})

    def unheard(self, line: SpokenLine) -> None:
        """A turn goes on while no client is there."""
        self._turns.begin(line.transcript.item_id)

    def keep(self, line: SpokenLine) -> None:
        """A turn ends while no client is there."""
        self._turns.keep(line)

    def missed(self, line: SpokenLine) -> Iterator[bytes]:
        """The end of a turn that no client was there for, unless the log has told it."""
        key = said(line)
        if key in self._told:
            return
        number = self._number_of(key)
        yield from self._rendered(line, "EndOfTurn", number)

    def logged(self, entry: FinalEntry, epoch: str, offset: int) -> Iterator[bytes]:
        """The end of a turn is in the log: tell it if it was not told, and where it is."""
        key = (entry.item_id, entry.timestamp_unix_ms)
        number = self._told.get(key)
        if number is None:
            number = self._number_of(key)
            if not self.is_connected:
                yield self._hello()
            turn = turn_of_entry(
                entry,
                request_id=self._request_id(),
                sequence_id=self._sequence,
                turn_index=number,
            )
            self._sequence += 1
            yield encode_message(turn)
        yield encode_message(Logged(turn_index=number, epoch=epoch, offset=offset))

    def _number_of(self, key: Said) -> int:
        """The number of a turn that is told late: its own, or a new one."""
        number = self._turns.ended.get(key)
        if number is None:
            number = self._turns.foreign()
            remember(self._turns.ended, key, number)
        remember(self._told, key, number)
        return number

    def _end_unsaid(self) -> Iterator[bytes]:
        """End a turn all of whose words had been told before."""
        turns = self._turns
        if (ending := turns.ending) is not None:
            turns.ending = None
            number = turns.number_of(ending)
            turns.end(number)
            yield self._turn(ending, number, {"transcript": "", "words": (), "text": ""})

    def _rendered(self, line: SpokenLine, event: str, number: int) -> Iterator[bytes]:
        if not self.is_connected:
            yield self._hello()
        turn = turn_of(
            line,
            event,
            request_id=self._request_id(),
            sequence_id=self._sequence,
            turn_index=number,
        )
        self._sequence += 1
        yield encode_message(turn)

    def _turn(self, message: EngineMessage, number: int, changes: dict[str, object]) -> bytes:
        if self._turns.connections > 1:
            changes = {
                "audio_window_start": seconds(message.start_ms),
                "audio_window_end": seconds(message.end_ms),
                **changes,
            }
        return self._as_it_came(message, {"turn_index": number, **changes})

    def _as_it_came(self, message: EngineMessage, changes: dict[str, object]) -> bytes:
        body = amended(message.body, {"sequence_id": self._sequence, **changes})
        self._sequence += 1
        return body

    def _hello(self) -> bytes:
        hello = Connected(request_id=self._request_id(), sequence_id=self._sequence)
        self._sequence += 1
        return encode_message(hello)

    def _request_id(self) -> str:
        self._turns.request_id = self._turns.request_id or str(uuid4())
        return self._turns.request_id


def said(line: SpokenLine) -> Said:
    """What tells this final from all others."""
    return line.transcript.item_id, line.transcript.timestamp_unix_ms


def remember(numbers: dict[Said, int], key: Said, number: int) -> None:
    """Keep a number, and forget the oldest when there are too many."""
    if len(numbers) >= MOST_ENDED:
        del numbers[next(iter(numbers))]
    numbers[key] = number
