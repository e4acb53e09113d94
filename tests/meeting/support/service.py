"""A service that tells voices apart, with the limits and answers of the real one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections import Counter, deque
from typing import Any, Self

from aiohttp import web

from tests.meeting.support import voices

PATH = "/speaker/resolve"
MAX_BODY_BYTES = 6 * 1024 * 1024
MAX_AUDIO_BYTES = 5 * 1024 * 1024
MAX_AUDIO_S = 30
MAX_TEXT_CHARS = 4000
MAX_SESSION_CHARS = 128
FORMATS = ("wav", "pcm_s16le", "mp3", "m4a", "ogg", "flac")


class Refused(Exception):
    """A request is answered with an error."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class VoiceService:
    """Serves on a free port while it is entered.

    ``faults`` are answered first, in turn: a status with a body and headers, or an exception that
    cuts the connection. While ``open`` is not set nothing is answered.
    """

    def __init__(
        self, key: str | None = None, per_window: int = 60, window_s: float = 60.0
    ) -> None:
        self.key = key
        self.per_window = per_window
        self.window_s = window_s
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[dict[str, Any]] = []
        """The bodies of all requests that could be read."""
        self.headers: list[dict[str, str]] = []
        self.answered: Counter[int] = Counter()
        self.faults: deque[tuple[int, bytes, dict[str, str]] | None] = deque()
        """None cuts the connection."""
        self.at_once = self.most_at_once = 0
        self.url = ""
        self._times: dict[str, deque[float]] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(PATH, self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def fail(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        """Answer the next request so."""
        self.faults.append((status, body, {k.replace("_", "-"): v for k, v in headers.items()}))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            status, body, headers = await self._answer(request)
        finally:
            self.at_once -= 1
        self.answered[status] += 1
        return web.Response(
            status=status, body=body, headers=headers, content_type="application/json"
        )

    async def _answer(self, request: web.Request) -> tuple[int, bytes, dict[str, str]]:
        try:
            text = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return 413, b'{"detail":"body too large"}', {}
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.faults:
            fault = self.faults.popleft()
            if fault is None:
                assert request.transport is not None
                request.transport.abort()
                return 0, b"", {}
            return fault
        try:
            self._check_key(request)
            self._check_rate(request.remote or "")
            answer = self._resolve(text)
        except Refused as refusal:
            return (
                refusal.status,
                json.dumps({"detail": refusal.detail}).encode(),
                refusal.headers,
            )
        # What was decided is what was known when it was asked, however late it is told.
        await self.open.wait()
        return 200, json.dumps(answer).encode(), {}

    def _check_key(self, request: web.Request) -> None:
        if self.key is not None and request.headers.get("x-api-key") != self.key:
            raise Refused(401, "bad key")

    def _check_rate(self, peer: str) -> None:
        times, now = self._times.setdefault(peer, deque()), time.monotonic()
        while times and now - times[0] >= self.window_s:
            times.popleft()
        if len(times) >= self.per_window:
            wait_s = self.window_s - (now - times[0])
            raise Refused(
                429,
                "too many requests",
                {
                    "X-RateLimit-Limit": str(self.per_window),
                    "X-RateLimit-Remaining": "0",
                    "X-RateLimit-Reset": f"{wait_s:.3f}",
                },
            )
        times.append(now)

    def _resolve(self, text: bytes) -> dict[str, Any]:
        try:
            body = json.loads(text)
            audio, state = body["audio"], body["state"]
            content = base64.b64decode(audio["content_b64"], validate=True)
            clusters, bindings = list(state["clusters"]), dict(state["bindings"])
            session, said = body["session_id"], body.get("asr_text") or ""
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise Refused(422, f"unprocessable: {error}") from error
        self.asked.append(body)
        if not 1 <= len(session) <= MAX_SESSION_CHARS or len(said) > MAX_TEXT_CHARS:
            raise Refused(422, "session_id or asr_text too long")
        if audio["format"] not in FORMATS:
            raise Refused(422, "unknown format")
        if len(content) > MAX_AUDIO_BYTES:
            raise Refused(422, "audio too large")
        try:
            samples = voices.decode(
                content,
                audio["format"],
                audio.get("sample_rate") or voices.RATE_HZ,
                audio.get("channels") or 1,
            )
        except voices.BadAudio as error:
            raise Refused(400, f"audio cannot be decoded: {error}") from error
        if len(samples) > MAX_AUDIO_S * voices.RATE_HZ:
            raise Refused(422, "audio too long")
        speech = voices.segments(samples)
        if not speech:
            raise Refused(422, "no speech")
        cluster, score, clusters = voices.assign(clusters, voices.embed(speech))
        roster = state.get("roster") or []
        names = [person["name"] for person in roster]
        candidate = voices.name_in(said)
        decided = voices.decide(score, candidate, bindings.get(cluster), names)
        if decided.bound:
            bindings[cluster] = decided.bound
        return {
            "session_id": session,
            "cluster_id": cluster,
            "speaker_name": decided.name,
            "decision": decided.decision,
            "evidence": {
                "sv_score": score,
                "threshold_low": voices.LOW,
                "threshold_high": voices.HIGH,
                "segment_count": len(speech),
                "name_hit": candidate[0] if candidate else None,
                "roster_hit": candidate[0] in names if candidate and names else None,
            },
            "updated_state": {
                "clusters": [
                    {**each, "bound_name": bindings.get(each["cluster_id"])} for each in clusters
                ],
                "bindings": bindings,
                "roster": roster,
                "config": state.get("config", {}),
            },
        }
