"""Deepgram's ``/v1/listen`` over a WebSocket, for clients written for that service.

Audio comes as binary messages in the form that the query names, texts are ``KeepAlive``,
``Finalize`` and ``CloseStream``; results go back in Deepgram's words. See docs/front-doors.md for
what is different.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from edge.audio.container import UnusableContainer
from edge.ingest.counts import IngestCounts
from edge.ingest.deepgram_messages import (
    Alternative,
    Channel,
    CloseStream,
    Configure,
    ConfigureFailure,
    Error,
    Finalize,
    Metadata,
    ModelInfo,
    Results,
    ResultsMetadata,
    SpeechStarted,
    UtteranceEnd,
    alternative,
    decode_request,
    encode,
)
from edge.ingest.deepgram_query import (
    MODELS,
    BadQuery,
    DeepgramQuery,
    parse_deepgram_query,
    refusal,
)
from edge.ingest.door import CLOSES, Caller, Crowd, full, provider_of
from edge.ingest.interface import Refusal, UpgradeRequest
from edge.ingest.session_audio import track_name
from edge.ingest.voice import ContainerVoice, PacketVoice, SampleVoice, Voice
from edge.ingest.wav_header import BadWav, SampleForm, read_header
from edge.session.interface import SessionHost, SessionRequest, SpokenLine, TagFailure
from edge.transport.interface import Close, Limits
from edge.version import VERSION

PATH = "/v1/listen"
SUBPROTOCOL = "token"
"""What browsers offer beside their key."""
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
IDLE_S = 10.0
"""As the service does; clients send a KeepAlive every 3 to 5 s."""
NO_AUDIO = "NET-0001: neither audio nor KeepAlive came within the timeout window"
NOT_AUDIO = "DATA-0000: this cannot be decoded as audio"
_EBML = b"\x1a\x45\xdf\xa3"
_SNIFF_BYTES = 12
MOST_ECHOED = 200
MOST_OPEN = 64
"""Utterances without a final that are remembered."""


class DeepgramProtocol:
    """Answers upgrades of ``/v1/listen`` that offer the subprotocol, or do not."""

    limits = Limits(max_message_bytes=MAX_MESSAGE_BYTES)

    def __init__(self, counts: IngestCounts, subprotocol: str | None) -> None:
        self._counts = counts
        self._crowd: Crowd = set()
        self.subprotocol = subprotocol

    def matches(self, request: UpgradeRequest) -> bool:
        """Whether it is the path, and the subprotocol."""
        offered = SUBPROTOCOL in request.subprotocols
        return request.path == PATH and offered == (self.subprotocol is not None)

    def accept(self, request: UpgradeRequest, host: SessionHost) -> DeepgramReceiver | Refusal:
        """Validate the query; 400 says what is wrong in the service's form."""
        try:
            query = parse_deepgram_query(request.query)
        except BadQuery as problem:
            return Refusal(400, refusal(str(problem)))
        known, aliases = host.offer.available_providers, host.offer.aliases
        try:
            provider = provider_of(query.who.provider or query.model, MODELS, known, aliases)
        except LookupError as unknown:
            able = ", ".join(known)
            told = f"No such model/version combination found: {unknown}; recognizers here: {able}"
            return Refusal(400, refusal(told[:500], "INVALID_MODEL"))
        who = msgspec.structs.replace(query.who, provider=provider)
        query = msgspec.structs.replace(query, who=who)
        return full(host, self._crowd, who.session, who.speaker) or DeepgramReceiver(
            query, host, self._counts, self._crowd
        )


class _Talk(msgspec.Struct):
    """What was told of one channel."""

    voice: Voice
    index: tuple[int, int]
    begun: dict[str, None] = msgspec.field(default_factory=dict)
    """Utterances whose beginning was told, and that are not finished."""
    last_word_end: float = 0.0
    ending: asyncio.TimerHandle | None = None
    """Tells ``UtteranceEnd``."""
    held: Results | None = None
    """The newest final, while it may be the last one before the answer to ``Finalize``."""

    def quiet(self) -> None:
        if self.ending is not None:
            self.ending.cancel()
            self.ending = None


class DeepgramReceiver(Caller):
    """One client's connection."""

    def __init__(
        self, query: DeepgramQuery, host: SessionHost, counts: IngestCounts, crowd: Crowd
    ) -> None:
        super().__init__(host, counts, crowd)
        self._query = query
        self._request_id = str(uuid4())
        self._talks: dict[str, _Talk] = {}
        self._begun = b""
        """The first bytes of audio whose form they have to tell."""
        self._left: int | None = None
        """Bytes of samples that a WAV header announced and that have not come."""
        self._sum = hashlib.sha256()
        self._created = datetime.now(UTC)
        self._finalizing = False
        self._began_s = time.monotonic()
        self._models: dict[str, ModelInfo] = {}
        self._rest = b""

    def begin(self) -> None:
        """Open the session, so that its recognizer is there when audio comes."""
        who = self._query.who
        request = SessionRequest(
            session_id=who.session or self._request_id,
            speaker=who.speaker,
            provider=who.provider,
            language=who.language,
            labels=self._query.labels,
            mip_opt_out=self._query.mip_opt_out,
            use_dispatcher=who.use_dispatcher,
        )
        self.watch(IDLE_S)
        if not self.attach(request, is_named=who.session is not None):
            return
        samples, channels = self._query.samples, self._query.channels
        if samples is not None and channels > 1:
            single = msgspec.structs.replace(samples, channels=1)
            for number in range(channels):
                self._add(SampleVoice(track_name(who.speaker, number), single), number)
        elif samples is not None:
            self._add(SampleVoice(who.speaker, samples))
        elif self._query.packets:
            self._add(PacketVoice(who.speaker))
        elif self._query.container is not None:
            self._add(ContainerVoice(who.speaker, self._query.container))

    def _add(self, voice: Voice, number: int = 0) -> None:
        self._talks[voice.tag] = _Talk(voice, (number, self._query.channels))
        if self._attachment is not None:
            voice.track(self._attachment)

    def take(self, data: bytes, is_text: bool) -> None:
        """Audio, or one of the four requests; an empty binary message is ``CloseStream``."""
        if is_text:
            self._request(data)
        elif data:
            self._sum.update(data)
            self._audio(data)
        else:
            self._close_stream()

    def closed(self, close: Close) -> None:
        """The connection is over."""
        for talk in self._talks.values():
            talk.quiet()
        super().closed(close)

    def fail(self, failure: TagFailure) -> None:
        """Close as the service does when it cannot go on."""
        self.close(CLOSES.get(failure.code, 1011), failure.message)

    def idle(self) -> None:
        """Close as the service does."""
        self.close(1011, NO_AUDIO)

    # Audio

    def _audio(self, data: bytes) -> None:
        try:
            if not self._talks:
                data = self._sniff(data)
            if self._left is not None:
                data, self._left = data[: self._left], max(0, self._left - len(data))
            if not data:
                return
            if len(self._talks) == 1:
                for talk in self._talks.values():
                    self.feed(talk.voice, data)
            elif self._talks:
                self._channels(data)
        except (UnusableContainer, BadWav) as problem:
            self._counts.bad_events += 1
            self._takes = False
            self.close(1008, f"{NOT_AUDIO}: {problem}")

    def _sniff(self, data: bytes) -> bytes:
        """Find out what the audio is; returns what is to be played of it by now."""
        self._begun += data
        begun, speaker = self._begun, self._query.who.speaker
        if len(begun) < _SNIFF_BYTES:
            return b""
        if begun.startswith(b"OggS"):
            self._add(ContainerVoice(speaker, "ogg"))
        elif begun.startswith(_EBML):
            self._add(ContainerVoice(speaker, "webm"))
        else:
            header = read_header(begun)
            if header is None:
                return b""
            self._left = header.size
            self._add(SampleVoice(speaker, header.form))
            begun = begun[header.offset :]
        self._begun = b""
        return begun

    def _channels(self, data: bytes) -> None:
        assert self._query.samples is not None
        form: SampleForm = self._query.samples
        data = self._rest + data
        whole = len(data) - len(data) % form.frame_bytes
        self._rest = data[whole:]
        width = form.frame_bytes // form.channels
        samples = memoryview(data)[:whole].cast("H" if width == 2 else "B")
        for number, talk in enumerate(self._talks.values()):
            self.feed(talk.voice, samples[number :: form.channels].tobytes())

    # Requests

    def _request(self, data: bytes) -> None:
        try:
            request = decode_request(data)
        except msgspec.DecodeError as problem:
            self._counts.bad_events += 1
            echoed = data[:MOST_ECHOED].decode("utf-8", "replace")
            self.send(encode(Error("SchemaError", str(problem), echoed)))
            return
        match request:
            case Finalize():
                self._finalize()
            case CloseStream():
                self._close_stream()
            case Configure():
                told = "what recognizers are told cannot be changed while they listen"
                code = "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
                self.send(encode(ConfigureFailure(self._request_id, code, told)))

    def _finalize(self) -> None:
        attachment = self._attachment
        if attachment is None or not self._takes or self._finalizing:
            return
        self._finalizing = True
        flushed = attachment.flush(self._host.settings.finish_deadline_s)

        async def answer() -> None:
            try:
                await flushed()
            finally:
                self._finalizing = False
            for talk in self._talks.values():
                self._tell_finalized(talk)

        self.spawn(answer())

    def _tell_finalized(self, talk: _Talk) -> None:
        last, talk.held = talk.held, None
        if last is None:
            end_s = round(talk.voice.sent_ms / 1000, 3)
            nothing = Alternative("", 0.0, [])
            last = self._results(talk, nothing, end_s, end_s, is_final=True, provider="")
        self.send(encode(msgspec.structs.replace(last, from_finalize=True, speech_final=True)))

    def _close_stream(self) -> None:
        if self._takes:
            self._takes = False
            self.spawn(self._end())

    async def _end(self) -> None:
        await self.finish()
        for talk in self._talks.values():
            if talk.held is not None:
                self._tell_finalized(talk)
            if talk.ending is not None:
                talk.quiet()
                self._tell_utterance_end(talk)
        duration_s = max((talk.voice.sent_ms for talk in self._talks.values()), default=0.0) / 1000
        self.send(
            encode(
                Metadata(
                    transaction_key="deprecated",
                    request_id=self._request_id,
                    sha256=self._sum.hexdigest(),
                    created=self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    duration=round(duration_s, 3),
                    channels=self._query.channels,
                    models=list(self._models),
                    model_info=self._models,
                    warnings=self._query.warnings,
                )
            )
        )
        self.close(1000, "")

    # What was said

    def transcript(self, line: SpokenLine) -> bool:
        """Tell a result, and what goes before it."""
        talk = self._talks.get(line.tag)
        if talk is None:
            return False
        said = line.transcript
        start_s = round(self.stream_ms(talk.voice, line.start_ms) / 1000, 3)
        end_s = max(start_s, round(self.stream_ms(talk.voice, line.end_ms) / 1000, 3))
        talk.quiet()
        if said.item_id not in talk.begun:
            if len(talk.begun) >= MOST_OPEN:
                del talk.begun[next(iter(talk.begun))]
            talk.begun[said.item_id] = None
            if self._query.vad_events:
                self.send(encode(SpeechStarted(talk.index, start_s)))
        if not said.is_final and not self._query.interims:
            return False
        found = alternative(
            said.text, start_s, end_s, said.confidence, said.speaker,
            said.language if self._query.who.language == "multi" else None,
        )  # fmt: skip
        results = self._results(
            talk, found, start_s, end_s, is_final=said.is_final, provider=said.provider
        )
        if not said.is_final:
            return self.send(encode(results))
        talk.begun.pop(said.item_id, None)
        return self._final(talk, results, end_s)

    def _final(self, talk: _Talk, results: Results, end_s: float) -> bool:
        talk.last_word_end = end_s
        if self._query.utterance_end_ms is not None:
            since_ms = (time.monotonic() - self._began_s) * 1000
            # Of audio that is sent faster than it is spoken the rest is still to be heard.
            passed_ms = max(0.0, min(talk.voice.sent_ms, since_ms) - end_s * 1000)
            wait_s = max(0.0, self._query.utterance_end_ms - passed_ms) / 1000
            loop = asyncio.get_running_loop()
            talk.ending = loop.call_later(wait_s, self._tell_utterance_end, talk)
        if self._finalizing:
            earlier, talk.held = talk.held, results
            return earlier is None or self.send(encode(earlier))
        return self.send(encode(results))

    def _tell_utterance_end(self, talk: _Talk) -> None:
        talk.ending = None
        if not talk.begun:
            self.send(encode(UtteranceEnd(talk.index, talk.last_word_end)))

    def _results(
        self,
        talk: _Talk,
        found: Alternative,
        start_s: float,
        end_s: float,
        *,
        is_final: bool,
        provider: str,
    ) -> Results:
        name = provider or self._host.offer.default_provider
        info = ModelInfo(name, VERSION, self._query.model or name)
        self._models[name] = info
        return Results(
            channel_index=talk.index,
            duration=round(end_s - start_s, 3),
            start=start_s,
            is_final=is_final,
            speech_final=is_final and self._query.speech_finals,
            channel=Channel([found]),
            metadata=ResultsMetadata(self._request_id, info, name),
        )
