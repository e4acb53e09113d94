"""Servers that speak OpenAI's Realtime protocol and that clients name themselves.

Comes in: mono PCM at 24 kHz, and with each request an address and a key. Goes out: the same as from
``edge.asr.openai_realtime``, whose settings of model and session apply. Hosts have to be on the
operator's list. ``edge.asr.registry`` builds it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from edge.asr.allowed_hosts import AllowedHosts
from edge.asr.interface import AudioWanted, Emit, Recognizer, RecognizerStream, StreamRequest
from edge.asr.openai_events import RATE_HZ
from edge.asr.openai_realtime import OpenAISessions, OpenAISettings
from edge.asr.openai_stream import OpenAICounts
from edge.asr.service import Service
from edge.asr.upstream import Upstream
from edge.errors import RecognizerClosed, RecognizerError, RecognizerRefused
from edge.option import option

NAME = "openai_custom"
KEY_HEADER = "X-Custom-Openai-Api-Key"
URL_PARAMETER = "openaiCustomUrl"
MOST_URL_CHARACTERS = 2048


class OpenAICustomSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether clients may bring a server of their own, and which."""

    enable_openai_custom_provider: Annotated[
        bool,
        option(
            "Offer the recognizer openai_custom: clients name an OpenAI-compatible server",
            env="ENABLE_OPENAI_CUSTOM_PROVIDER",
        ),
    ] = False
    """The address comes in the query (``openaiCustomUrl``), its key in a header."""
    openai_custom_require_wss: Annotated[
        bool, option("Refuse addresses without TLS", env="OPENAI_CUSTOM_REQUIRE_WSS")
    ] = True
    openai_custom_allowed_hosts: Annotated[
        tuple[str, ...],
        option(
            "Hosts that clients may name: names, addresses, networks; needed for openai_custom",
            env="OPENAI_CUSTOM_ALLOWED_HOSTS",
        ),
    ] = ()
    """Addresses that are not public are only connected to if they are listed themselves."""


def missing(settings: OpenAICustomSettings) -> str | None:
    """What has to be set before the recognizer can be used, or None."""
    if not settings.enable_openai_custom_provider:
        return "set ENABLE_OPENAI_CUSTOM_PROVIDER=true"
    return None if settings.openai_custom_allowed_hosts else "set OPENAI_CUSTOM_ALLOWED_HOSTS"


class OpenAICustomRecognizer(Recognizer):
    """Opens sessions where each request says; raises ``SettingError`` for unusable settings."""

    name: ClassVar[str] = NAME
    times: ClassVar[Literal["exact", "estimated"]] = "exact"

    def __init__(self, settings: OpenAICustomSettings, sessions: OpenAISettings) -> None:
        self._require_wss = settings.openai_custom_require_wss
        self._hosts = AllowedHosts(
            "OPENAI_CUSTOM_ALLOWED_HOSTS", settings.openai_custom_allowed_hosts
        )
        self._service = Service(NAME, None, url_setting=URL_PARAMETER, key_setting=KEY_HEADER)
        self._sessions = OpenAISessions(NAME, sessions)
        self.counts: OpenAICounts = self._sessions.counts

    @property
    def wants(self) -> AudioWanted:
        return AudioWanted(encoding="pcm16", rate_hz=RATE_HZ)

    def problem(self, request: StreamRequest) -> str | None:
        """What is wrong with the client's address or key; fits a close frame."""
        custom = request.custom
        if custom is None or not custom.key:
            return f"{KEY_HEADER} header is required for {NAME} provider"
        if not custom.url:
            return f"{URL_PARAMETER} query parameter is required for {NAME} provider"
        uri = _parsed(custom.url)
        if uri is None:
            return f"{URL_PARAMETER} is not a valid URL"
        if self._require_wss and not uri.secure:
            return (
                f"{URL_PARAMETER} must use wss:// scheme"
                " (set OPENAI_CUSTOM_REQUIRE_WSS=false to allow ws://)"
            )
        if self._hosts.entry_of(uri.host) is None:
            return f"{URL_PARAMETER} names a host that is not in OPENAI_CUSTOM_ALLOWED_HOSTS"
        return None

    def service_of(self, request: StreamRequest) -> str:
        """One for each entry of the list: a dead server of one client is no other's trouble."""
        uri = _parsed(request.custom.url) if request.custom is not None else None
        entry = self._hosts.entry_of(uri.host) if uri is not None else None
        return f"{NAME} {entry}" if entry is not None else NAME

    async def start(self) -> None:
        await self._service.start()

    async def open(self, request: StreamRequest, emit: Emit) -> RecognizerStream:
        problem, custom = self.problem(request), request.custom
        if problem is not None or custom is None:
            raise RecognizerRefused(f"{NAME}: {problem}")
        return self._sessions.begin(await self._connect(custom.url, custom.key), request, emit)

    async def _connect(self, url: str, key: str) -> Upstream:
        """Connect to the first of the host's allowed addresses that answers."""
        uri = parse_uri(url)
        try:
            addresses = await self._hosts.addresses(uri.host, uri.port)
        except OSError as error:
            raise RecognizerClosed(f"{NAME}: {uri.host} is not known") from error
        headers, subprotocols = self._sessions.credentials(key)
        failure: RecognizerError = RecognizerClosed(f"{NAME}: {uri.host} has no address")
        for address in addresses:
            try:
                return await self._service.connect(
                    url, headers=headers, subprotocols=subprotocols, address=address
                )
            except RecognizerClosed as error:
                failure = error
        raise failure


def _parsed(url: str) -> WebSocketURI | None:
    """The parts of an address that can be used as it is: no user, no fragment."""
    if len(url) > MOST_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        uri = parse_uri(url)
    except (InvalidURI, ValueError):
        return None
    return None if uri.username is not None or not uri.host or uri.port == 0 else uri
