"""One connection of ``edge.session.v1``, from its ``hello`` to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from msgspec import UNSET

from edge.errors import SessionDeleted, StoreError
from edge.ingest.listen_query import ListenQuery
from edge.ingest.session_audio import SpeakerAudio, floors_of
from edge.ingest.session_commands import Commands
from edge.ingest.session_messages import (
    BadMessage,
    Command,
    Err,
    Hello,
    LimitsOffered,
    Ping,
    Pong,
    Resume,
    Welcome,
    decode_request,
    encode,
)
from edge.ingest.session_replay import Replay, Standing
from edge.ingest.session_room import Member, Room
from edge.ingest.session_speaker import Speaking, format_problem, speaker_request
from edge.ingest.throttle import Throttle
from edge.logs import Repeats, get_logger
from edge.session.interface import SessionHost
from edge.session.ledger import retrying
from edge.session.store.interface import now_ms
from edge.session.store.presence import Presence
from edge.transport.interface import Close, Socket

if TYPE_CHECKING:
    from edge.ingest.session_socket import Hall

MOST_COMMANDS = 16
"""Commands of one connection at work; further ones are answered ``busy``."""
LAST_WORDS_S = 2.0
LOOK_BACK = 1000
"""Entries in which the last final of each stream of a speaker is looked for."""
BAD_MESSAGES = 10
"""So many messages that are not understood are answered, the next closes the connection."""

_log = get_logger("edge.ingest.session_receiver")


NO_ADMINS = "this gateway takes no admins; see the setting session_admins"


class SessionReceiver:
    """The receiver of a connection; its ``query`` names the session."""

    def __init__(self, query: ListenQuery, hall: Hall, host: SessionHost) -> None:
        """``host`` is the gateway as this connection sees it."""
        assert query.session is not None
        self._query = query
        self._session = query.session
        self._hall = hall
        self._host = host
        self._connection = ""
        self._socket: Socket | None = None
        self._opened_s = 0.0
        self._hello: Hello | None = None
        self._hello_due: asyncio.TimerHandle | None = None
        self._throttle: Throttle | None = None
        self._repeats = Repeats(_log)
        self._bad = 0
        self._room: Room | None = None
        self._presence: Presence | None = None
        self._speaking: Speaking | None = None
        self._commands: Commands | None = None
        self._joining: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    # The socket's calls

    def opened(self, socket: Socket) -> None:
        """Wait for the ``hello``."""
        self._socket = socket
        self._opened_s = time.monotonic()
        self._connection = self._hall.enter(self)
        per_s = self._host.settings.max_events_per_s
        self._throttle = Throttle(socket, per_s, self._hall.counts, self._repeats)
        loop = asyncio.get_running_loop()
        self._hello_due = loop.call_later(self._hall.settings.hello_deadline_s, self._no_hello)

    def message(self, data: bytes, is_text: bool) -> None:
        """One message: audio if binary, else one of ``session_messages``."""
        if not is_text:
            self._audio(data)
            return
        if self._throttle is not None:
            self._throttle.spend(1.0, time.monotonic())
        try:
            request = decode_request(data)
        except BadMessage as problem:
            self._misunderstood(problem)
            return
        if self._hello is None:
            if isinstance(request, Hello):
                self._welcome_later(request)
            else:
                self.fail(4001, Err("bad_hello", "the first message is a hello", False))
            return
        match request:
            case Hello():
                self.fail(4001, Err("bad_hello", "a hello comes once", False))
            case Ping(id=id):
                self._send(encode(Pong() if id is UNSET else Pong(id)))
            case Command():
                self._command(request)

    def closed(self, close: Close) -> None:
        """Leave everything; a speaker's tracks wait for its return."""
        if self._hello_due is not None:
            self._hello_due.cancel()
        if self._throttle is not None:
            self._throttle.close()
        for task in (self._joining, self._settling, *self._working):
            if task is not None:
                task.cancel()
        if self._room is not None:
            self._room.leave(self)
            self._hall.rooms.leave(self._room)
            self._room = None
        if self._speaking is not None:
            self._speaking.close(close)
            self._speaking = None
        if self._presence is not None:
            at_once = self._is_leaving or (close.by_peer and close.code == 1000)
            self._hall.attendance.leave(
                self._session, self._connection, self._presence, at_once=at_once
            )
        self._hall.leave(self)
        self._repeats.summarize()
        self._socket = self._throttle = None

    # The gateway's and the room's calls

    def draining(self, message: bytes) -> None:
        """The gateway stops: say when to come back."""
        if self._hello is not None:
            self._send(message)

    def restarting(self) -> None:
        """The gateway has finished what it could."""
        if self._socket is not None:
            self._socket.close(1012, "The gateway restarts: resume now")

    def moved(self) -> None:
        """The history is another one: a new welcome says so, with all of it."""
        self._join(None)

    def ended(self) -> None:
        """The session is over, and all of it has been sent."""
        if self._socket is not None:
            self._socket.close(4004, "The session has ended")

    def fail(self, code: int, err: Err) -> None:
        """Say what is wrong and close."""
        if self._socket is not None and self._socket.is_open:
            self._repeats.note("a client was refused", close_code=code, reason=err.code)
            self._host.stability.error(self)
            self._socket.send_text(encode(err))
            self._socket.close(code, err.message)

    # Hello

    def _no_hello(self) -> None:
        message = f"no hello within {self._hall.settings.hello_deadline_s:g} s"
        self.fail(4001, Err("bad_hello", message, False))

    def _welcome_later(self, hello: Hello) -> None:
        assert self._hello_due is not None and self._socket is not None
        self._hello_due.cancel()
        if problem := self._not_allowed(hello):
            self.fail(4003, Err("forbidden", problem, False))
            return
        if hello.role == "speaker" and (problem := format_problem(hello.audio)):
            self.fail(4001, Err("bad_hello", f"audio: {problem}", False))
            return
        self._hello = hello
        self._socket.pause()
        self._join(hello.resume)

    def _not_allowed(self, hello: Hello) -> str | None:
        rights = self._host.rights
        if rights is None:
            is_refused = hello.role == "admin" and not self._hall.settings.session_admins
            return NO_ADMINS if is_refused else None
        is_allowed = {
            "speaker": rights.speak,
            "listener": rights.listen,
            "admin": rights.administer,
        }[hello.role]
        return None if is_allowed else f"this credential may not come as {hello.role}"

    def _join(self, resume: Resume | None) -> None:
        if self._socket is not None and self._socket.is_open:
            self._joining = asyncio.get_running_loop().create_task(self._come_in(resume))

    async def _come_in(self, resume: Resume | None) -> None:
        socket = self._socket
        assert socket is not None and self._hello is not None
        ledger = self._hall.ledger
        try:
            if self._room is None:
                await ledger.exists(self._session)
                if self._hello.role == "speaker" and not await self._attach(self._hello):
                    return
                self._room = self._hall.rooms.enter(self._session)
            replay = Replay(
                self._room,
                ledger.followers,
                socket,
                welcome=self._welcome,
                member=self._member,
            )
            await replay.run(resume)
        except SessionDeleted:
            await self._gone()
        except StoreError as error:
            self._repeats.note("a client could not join", reason=str(error))
            message = "the session store does not answer; try again"
            self.fail(1013, Err("store_unavailable", message, True))
        except Exception as error:
            _log.error("a client could not join", exc_info=error)
            self.fail(1011, Err("internal", "the gateway failed on this connection", True))

    async def _gone(self) -> None:
        """There is no such session: it was deleted, or the store has just lost it."""
        try:
            await self._hall.ledger.exists(self._session)
        except SessionDeleted:
            self.ended()
        except StoreError:
            self.fail(1013, Err("store_unavailable", "the session store does not answer", True))
        else:
            self.fail(1012, Err("history_lost", "the session begins anew: come back", True))

    async def _attach(self, hello: Hello) -> bool:
        """Take the speaker's place; closes the connection and returns False where that fails."""
        assert self._socket is not None and self._throttle is not None
        query = self._query
        goes_on = hello.resume is not None and hello.resume.audio_seq is not None
        is_elsewhere = goes_on and not self._host.resumes(self._session, query.speaker)
        audio = SpeakerAudio()
        if is_elsewhere:
            audio.begin(await self._floors())
        request = speaker_request(query, audio, hello.audio, is_elsewhere=is_elsewhere)
        if problem := self._host.problem(request):
            self.fail(4001, Err("bad_hello", problem, False))
            return False
        speaking = Speaking(
            self._socket, self._host, request, self._hall.counts, self._throttle, self.fail
        )
        if not speaking.attach(goes_on=goes_on):
            self.fail(1013, Err("overloaded", "this worker takes no more sessions", True))
            return False
        self._speaking = speaking
        if not speaking.is_settled:
            self._settling = asyncio.get_running_loop().create_task(self._settle(speaking))
        return True

    async def _floors(self) -> dict[int, int]:
        """What of the speaker's audio is covered by finals in the log."""
        store = self._hall.ledger.store
        head = await store.head(self._session)
        page = await store.read(self._session, max((head.head if head else 0) - LOOK_BACK, 0))
        return floors_of(self._query.speaker, page.entries if page else ())

    async def _settle(self, speaking: Speaking) -> None:
        """Leave audio unread until the former worker has finished what it had."""
        try:
            await speaking.settled()
            async for attempt in retrying():
                with attempt:
                    floors = await self._floors()
            speaking.go_on_from(floors)
        except StoreError as error:
            self._repeats.note("a speaker goes on from an older frame", reason=str(error))
        finally:
            self._settling = None
        self._read()

    def _read(self) -> None:
        """Take messages, once there is nothing to wait for."""
        if self._socket is not None and self._settling is None and self._presence is not None:
            self._socket.resume()

    def _welcome(self, standing: Standing) -> None:
        hello, socket = self._hello, self._socket
        assert hello is not None and socket is not None
        speaking = self._speaking
        speaker = self._query.speaker if speaking else ""
        acked = speaking.audio.acked if speaking else 0
        self._send(
            encode(
                Welcome(
                    session=self._session,
                    conn=self._connection,
                    role=hello.role,
                    epoch=standing.epoch,
                    offset=standing.offset,
                    recovered=standing.recovered,
                    audio_ack=acked,
                    server_time=now_ms(),
                    limits=self._limits(hello),
                    speaker=speaker or UNSET,
                    snapshot=standing.snapshot,
                )
            )
        )
        if speaking:
            speaking.welcomed(acked)
        self._host.stability.welcomed(self, f"{self._session} {speaker}" if speaker else "")
        if self._presence is None:
            if hello.lost_ms is not None:
                self._host.stability.lost_ms(self, hello.lost_ms)
            self._presence = Presence(role=hello.role, speaker=speaker, since_unix_ms=now_ms())
            self._hall.attendance.enter(self._session, self._connection, self._presence)
            self._commands = Commands(
                self._hall.ledger,
                self._session,
                hello.role,
                speaker,
                speaking.command if speaking else lambda op, body: None,
            )
            if speaking:
                speaking.catch_up()
            self._read()

    def _limits(self, hello: Hello) -> LimitsOffered:
        settings = self._host.settings
        return LimitsOffered(
            message_bytes=64 * 1024,
            resume_grace_ms=round(1000 * settings.resume_grace_s),
            ping_interval_ms=15_000,
            conflate_ms=hello.conflate_ms,
        )

    def _member(self, offset: int) -> Member:
        assert self._socket is not None and self._hello is not None
        conflate_s = self._hello.conflate_ms / 1000
        skip = self._query.speaker if self._speaking else ""
        return Member(self, self._socket, offset, conflate_s=conflate_s, skip=skip)

    # Messages

    def _audio(self, data: bytes) -> None:
        if self._hello is None:
            self.fail(4001, Err("bad_hello", "the first message is a hello", False))
        elif self._hello.role != "speaker":
            self.fail(1008, Err("forbidden", "only speakers send audio", False))
        elif self._speaking is not None:
            self._speaking.frame(data)

    def _misunderstood(self, problem: BadMessage) -> None:
        self._hall.counts.bad_events += 1
        self._bad += 1
        if self._hello is None:
            self.fail(4001, Err("bad_hello", str(problem), False))
        elif not problem.is_json:
            self.fail(1007, Err("bad_message", str(problem), False))
        elif self._bad > BAD_MESSAGES:
            self.fail(1008, Err("bad_message", "too many messages that are none", False))
        else:
            self._send(encode(Err("bad_message", str(problem), False)))

    def _command(self, command: Command) -> None:
        if len(self._working) >= MOST_COMMANDS or self._commands is None:
            message = f"{MOST_COMMANDS} commands are being done; wait for their answers"
            self._send(encode(Err("busy", message, True)))
            return
        task = asyncio.get_running_loop().create_task(self._execute(self._commands, command))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _execute(self, commands: Commands, command: Command) -> None:
        result = await commands.execute(command)
        self._send(encode(result))
        if command.op == "leave" and result.ok:
            self._is_leaving = True
            await self._last_words()
            if self._socket is not None:
                self._socket.close(1000, "Left")

    async def _last_words(self) -> None:
        """See to it that a speaker who leaves gets its last finals, if the store is quick."""
        if self._speaking is None or self._room is None:
            return
        deadline_s = self._host.settings.finish_deadline_s + LAST_WORDS_S
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(deadline_s):
                await self._speaking.finish()
                await self._room.caught_up()

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            self._socket.send_text(message)
