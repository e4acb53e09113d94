"""The one question that is asked of every request: who is it, and may it.

A worker's ``Guard`` looks at plain requests with ``request`` and at upgrades with ``socket``,
before any route or protocol does. Answers are uniform: a credential that is not good is 401.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from prometheus_client import Counter

from edge.auth.addresses import Proxies, client_of
from edge.auth.credentials import Presented, presented
from edge.auth.exposure import keys_path
from edge.auth.grants import Allowance, Denied, Grant, forbidden, unknown
from edge.auth.keys import Keys
from edge.auth.quota import Meter, Quotas
from edge.auth.rooms import room_grant
from edge.auth.rules import Need, introduces_itself, is_public, need_of_request, need_of_socket
from edge.auth.settings import AuthSettings
from edge.auth.tokens import Tokens
from edge.session.store.interface import SessionStore
from edge.transport.interface import Socket

MINUTE_S = 60.0
MOST_REMEMBERED = 10_000
LONGEST_IN_QUERY_S = 3600.0
"""A token in a URL is good for no longer: URLs are seen by more people than headers are."""

_REFUSED = Counter("edgescribe_auth_refused", "Requests that were not let in", ["reason"])


class Admission(msgspec.Struct, frozen=True):
    """Who was let in, and what counts what they use."""

    grant: Grant
    meter: Meter

    def join(self, socket: Socket) -> None:
        """Its connection is open."""
        self.meter.join(socket, self.grant.key_id)


class Guard:
    """One worker's; the store is open from before ``start`` until after ``stop``."""

    def __init__(
        self,
        settings: AuthSettings,
        data_dir: Path,
        store: SessionStore,
        followed: Collection[str] = (),
    ) -> None:
        """``followed``: paths of sockets that can be listened to. Raises ``SettingError``."""
        self._settings = settings
        self._keys = Keys(keys_path(settings, data_dir), settings.api_keys)
        self._tokens = Tokens(settings)
        self._followed = followed
        self._proxies = Proxies(settings.trusted_proxies)
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self.quotas = Quotas(
            store,
            Allowance(
                connections=settings.key_max_connections,
                tracks=settings.key_max_tracks,
                requests_per_s=settings.key_requests_per_s,
                audio_s_per_day=settings.key_audio_s_per_day,
            ),
            lambda key_id: self._keys.is_good(key_id, time.time()),
        )

    def start(self) -> None:
        """Begin to add up what keys use."""
        self.quotas.start()

    async def stop(self) -> None:
        """End; a second at most."""
        await self._tokens.stop()
        await self.quotas.stop()

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The address that somebody comes from, behind proxies that are trusted."""
        return self._proxies.client(peer, forwarded)

    async def request(
        self, method: str, path: str, query: str, headers: Mapping[str, str], address: str
    ) -> Admission | None:
        """Who asks; None where everybody may. Raises ``Denied``."""
        if is_public(method, path):
            return None
        credential = presented(headers, query)
        need = need_of_request(method, path)
        grant = await self._identify(credential, need, address)
        self._check(grant, need)
        return self._admit(grant)

    async def socket(
        self,
        path: str,
        query: str,
        headers: Mapping[str, str],
        subprotocols: Sequence[str],
        address: str,
    ) -> Admission | None:
        """Who connects; None for a client that will say so in its first messages.

        Raises ``Denied``.
        """
        credential = presented(headers, query, subprotocols)
        if credential is None and introduces_itself(path):
            return None
        need = need_of_socket(path, query, self._followed)
        grant = await self._identify(credential, need, address)
        return self._connect(grant, need)

    async def first_frame(
        self, key: str, path: str, query: str, address: str, session: str | None = None
    ) -> Admission:
        """Who connected, by what the first messages say. Raises ``Denied``.

        ``session``: the one it is for, where the path and the query do not say.
        """
        need = need_of_socket(path, query, self._followed)
        if session is not None and need.session is None:
            need = msgspec.structs.replace(need, session=session)
        grant = await self._identify(Presented(key), need, address)
        return self._connect(grant, need)

    async def may_deploy(self, key: str, address: str) -> bool:
        """Whether somebody may change the router's services."""
        need = Need(("deploy",))
        try:
            grant = await self._identify(Presented(key), need, address)
            self._check(grant, need)
        except Denied:
            return False
        return True

    def _connect(self, grant: Grant, need: Need) -> Admission:
        self._check(grant, need)
        admission = self._admit(grant)
        if admission.meter.is_full():
            most = admission.meter.allowance.connections
            _REFUSED.labels("quota").inc()
            raise Denied(429, "too_many", f"This key may have {most} connections open", 5)
        return admission

    def _admit(self, grant: Grant) -> Admission:
        meter = self.quotas.meter(grant)
        if not meter.request(time.monotonic()):
            _REFUSED.labels("quota").inc()
            rate = meter.allowance.requests_per_s
            raise Denied(429, "too_many", f"This key may send {rate} requests a second", 1)
        return Admission(grant, meter)

    def _check(self, grant: Grant, need: Need) -> None:
        if not grant.has(*need.scopes):
            _REFUSED.labels("scope").inc()
            raise forbidden(f"This takes the scope {' or '.join(need.scopes)}")
        if grant.session is not None and (not need.is_of_session or need.session != grant.session):
            _REFUSED.labels("session").inc()
            raise forbidden("This credential is for another session")

    async def _identify(self, credential: Presented | None, need: Need, address: str) -> Grant:
        if credential is None:
            _REFUSED.labels("nothing").inc()
            raise unknown()
        client = client_of(address)
        digest = hashlib.sha256(credential.text.encode()).digest()
        if digest not in self._known and self._is_blocked(client):
            _REFUSED.labels("rate").inc()
            raise Denied(429, "too_many", "Too many wrong credentials; wait a minute", 60)
        grant = await self._find(credential, need)
        if grant is None:
            self._failed(client)
            self._known.pop(digest, None)
            _REFUSED.labels("credential").inc()
            raise unknown()
        self._known[digest] = None
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return grant

    async def _find(self, credential: Presented, need: Need) -> Grant | None:
        text, now_s = credential.text, time.time()
        grant = self._keys.find(text, now_s)
        if grant is not None:
            is_weak = grant.scopes.isdisjoint(("admin", "deploy"))
            return grant if is_weak or not credential.is_in_query else None
        grant = room_grant(self._settings.room_secret, text, need.session)
        if grant is not None:
            return grant
        grant = await self._tokens.find(text)
        if grant is not None and credential.is_in_query:
            left_s = (grant.expires_unix_s or 0.0) - now_s
            return grant if left_s <= LONGEST_IN_QUERY_S else None
        return grant

    def _is_blocked(self, client: str) -> bool:
        failed_s = self._failures.get(client)
        if failed_s is None:
            return False
        since_s = time.monotonic() - MINUTE_S
        failed_s[:] = [at_s for at_s in failed_s if at_s > since_s]
        return len(failed_s) >= self._settings.failed_logins_per_minute

    def _failed(self, client: str) -> None:
        failed_s = self._failures.setdefault(client, [])
        failed_s.append(time.monotonic())
        del failed_s[: -self._settings.failed_logins_per_minute]
        self._failures.move_to_end(client)
        if len(self._failures) > MOST_REMEMBERED:
            self._failures.popitem(last=False)
