"""Whatever a message holds survives the way; whatever lies there instead is told as an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch import DispatcherTranscriptionMessage, Envelope, Transport
from dispatch.messages import decode_message, encode_message
from dispatch.redis_stream import FIELDS, envelope_of, fields_of, partition_of
from dispatch.sqs_queue import ATTRIBUTES, MAX_NAME, entry_of, group_id
from dispatch.sqs_queue import envelope_of as received
from dispatch.transports.http import HttpTransport, retry_after_s
from dispatch.transports.sqs import SqsTransport
from dispatch.transports.websocket import WebSocketTransport, address

SOON = settings(max_examples=60, deadline=None)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
times_ms = st.integers(0, 1 << 53)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    session = draw(texts)
    message = DispatcherTranscriptionMessage(
        session_id=session, endpoint_id=draw(texts), text=draw(texts), timestamp=draw(times_ms)
    )
    offset, attempt = draw(st.integers(0, 1 << 60)), draw(st.integers(1, 1 << 31))
    body, epoch = encode_message(message), draw(texts)
    return Envelope(f"{session}:{offset}", session, body, attempt, epoch, draw(times_ms))


@SOON
@given(envelopes())
def test_a_stream_entry_is_the_envelope(envelope: Envelope) -> None:
    fields = fields_of(envelope)
    raw = [part if isinstance(part, bytes) else str(part).encode() for part in fields]
    assert envelope_of(dict(zip(raw[::2], raw[1::2], strict=True))) == envelope
    assert 0 <= partition_of(envelope.session).number < 16


@SOON
@given(envelopes())
def test_a_message_of_sqs_is_the_envelope(envelope: Envelope) -> None:
    entry = entry_of(envelope, fifo=True)
    found = received({"Body": entry["MessageBody"], **entry}) if envelope.session else None
    if found is not None:
        assert decode_message(found.body) == decode_message(envelope.body)
        assert (found.message_id, found.attempt) == (envelope.message_id, envelope.attempt)
        assert (found.epoch, found.enqueued_ms) == (envelope.epoch, envelope.enqueued_ms)
    group = group_id(envelope.session)
    assert group.isascii() and group.isprintable() and 0 < len(group) <= MAX_NAME


@SOON
@given(st.dictionaries(st.sampled_from([name.encode() for name in FIELDS]), st.binary()))
def test_any_other_entry_is_an_error(fields: dict[bytes, bytes]) -> None:
    with suppress(ValueError):
        envelope_of(fields)


@SOON
@given(st.dictionaries(st.sampled_from(ATTRIBUTES), texts), st.none() | texts)
def test_any_other_message_is_an_error(attributes: dict[str, str], body: str | None) -> None:
    message = {
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    }
    with suppress(ValueError):
        received(message if body is None else {"Body": body, **message})


@SOON
@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:]+ .*"))
def test_any_retry_after_is_a_time_within_bounds_or_none(value: str) -> None:
    found = retry_after_s(value, time.time())
    assert found is None or 0.0 <= found <= 3600.0


@SOON
@given(texts)
def test_any_session_has_an_address(session: str) -> None:
    parts = urlsplit(address("ws://host/path?a=b", session))
    found = parse_qs(parts.query, keep_blank_values=True)
    assert found == {"a": ["b"], "sessionId": [session]}


@SOON
@given(envelopes())
def test_any_id_goes_into_a_header(envelope: Envelope) -> None:
    headers = HttpTransport("http://host/")._envelope(envelope)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert unquote(headers["Idempotency-Key"]) == envelope.message_id


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "//host/x", "ftp://:secret@host/", "http://", "http://:secret@/"),
        *("http:///x", "http://host:secret/", "http://host:0/", "http://host/ secret\n"),
        "http://[secret/",
    ],
)
@pytest.mark.parametrize("make", [HttpTransport, WebSocketTransport, SqsTransport])
def test_a_url_that_cannot_be_one_is_told_at_once_and_without_its_password(
    make: Callable[[str], Transport], url: str
) -> None:
    if make is WebSocketTransport:
        url = url.replace("http", "ws")
    with pytest.raises(ValueError, match="it must be") as told:
        make(url)
    assert "secret" not in str(told.value)
