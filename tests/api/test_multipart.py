"""Forms are read as clients write them; whatever else comes is refused, and costs little."""

from __future__ import annotations

import time

import pytest
from aiohttp import FormData
from aiohttp.payload import BytesPayload
from hypothesis import given
from hypothesis import strategies as st

from edge.api.multipart import MOST_FIELDS, BadForm, parse_form
from edge.api.transcription_form import TranscriptionError, parse_asked

TYPE = 'multipart/form-data; boundary="frontier"'


def form(*fields: tuple[str, bytes], boundary: str = "frontier") -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + content
        for name, content in fields
    ]
    return b"\r\n".join((*parts, f"--{boundary}--\r\n".encode()))


@given(st.lists(st.tuples(st.from_regex(r"[a-z\[\]_]{1,12}", fullmatch=True), st.binary())))
def test_fields_come_as_they_were_sent(fields: list[tuple[str, bytes]]) -> None:
    if any(b"--frontier" in content for _, content in fields) or len(fields) > MOST_FIELDS:
        return
    found = parse_form(form(*fields), TYPE)
    assert [(field.name, bytes(field.content)) for field in found] == fields


class Written:
    """Takes what aiohttp writes."""

    def __init__(self) -> None:
        self.body = b""

    async def write(self, data: bytes) -> None:
        self.body += data


async def test_a_form_of_another_writer_is_read() -> None:
    data = FormData()
    data.add_field("model", "whisper-1")
    data.add_field("file", BytesPayload(b"\r\n--RIFF"), filename='a "b".wav', content_type="x/y")
    payload, written = data(), Written()
    await payload.write(written)  # type: ignore[arg-type]
    model, file = parse_form(written.body, payload.content_type)
    assert (model.text, bytes(file.content)) == ("whisper-1", b"\r\n--RIFF")


@given(st.binary(max_size=200), st.text(max_size=60))
def test_any_bytes_are_a_form_or_none(body: bytes, content_type: str) -> None:
    for sent in (body, b"--frontier\r\n" + body, form(("file", b"")) + body, b"--frontier" + body):
        for kind in (TYPE, content_type):
            try:
                fields = parse_form(sent, kind)
            except BadForm as problem:
                assert str(problem)
            else:
                assert len(fields) <= MOST_FIELDS
            try:
                parse_asked(sent, kind)
            except TranscriptionError as error:
                assert error.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"x--frontier" * 2_000_000,
        b"--frontier\r\n" * 1_500_000,
        form(*[("a", b"")] * 200_000),
        b"\r\n" * 10_000_000,
        b'--frontier\r\nContent-Disposition: form-data; name="' + b"\\" * 8_000 + b"\r\n\r\n",
        b"--frontier\r\n" + b"content-disposition: form-data" + b"; name" * 1_300 + b"\r\n\r\n",
    ],
    ids=["delimiters", "lines", "fields", "blank", "escapes", "parameters"],
)
def test_a_form_that_is_made_to_take_long_does_not(body: bytes) -> None:
    began_s = time.process_time()
    with pytest.raises(BadForm):
        parse_form(body, TYPE)
    assert time.process_time() - began_s < 0.25
