"""Forms with files: ``multipart/form-data`` cut into its fields, nothing copied.

Source: RFC 7578, RFC 2046 section 5.1.
"""

from __future__ import annotations

import re

import msgspec

MEDIA_TYPE = "multipart/form-data"
MOST_FIELDS = 64
MOST_HEADER_BYTES = 8 * 1024
"""Of one field."""
_BOUNDARY = re.compile(
    r"multipart/form-data\s*;(?:[^\"]*;)?\s*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))",
    re.IGNORECASE,
)
_DISPOSITION = re.compile(rb"^content-disposition:\s*form-data(.*)$", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(rb';\s*name="((?:\\.|[^"\\])*)"', re.IGNORECASE)
_ESCAPES = ((rb"\"", b'"'), (rb"\\", b"\\"), (b"%22", b'"'), (b"%0D", b"\r"), (b"%0A", b"\n"))


class BadForm(Exception):
    """It is no form; ``str()`` says why."""


class Field(msgspec.Struct, frozen=True):
    """One field of a form."""

    name: str
    content: memoryview

    @property
    def text(self) -> str:
        """Its content as text; raises ``BadForm``."""
        try:
            return str(self.content, "utf-8")
        except UnicodeDecodeError:
            raise BadForm(f"the field {self.name!r} is not UTF-8") from None


def parse_form(body: bytes, content_type: str) -> list[Field]:
    """The fields in the order they were sent; raises ``BadForm``."""
    match = _BOUNDARY.match(content_type.strip())
    if match is None:
        raise BadForm(f"send {MEDIA_TYPE} with a boundary")
    delimiter = b"--" + (match[1] or match[2]).encode()
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if not body.startswith(delimiter, at):
        raise BadForm("its boundary does not occur in it")
    view = memoryview(body)
    fields: list[Field] = []
    while True:
        at += len(delimiter)
        if body.startswith(b"--", at):
            return fields
        start = body.find(b"\r\n", at, at + MOST_HEADER_BYTES)
        end = body.find(b"\r\n\r\n", at, at + MOST_HEADER_BYTES)
        if start < 0 or end < 0 or body[at:start].strip():
            raise BadForm(f"a field's header does not end within {MOST_HEADER_BYTES} bytes")
        until = body.find(b"\r\n" + delimiter, end + 2)
        if until < 0:
            raise BadForm("it ends within a field")
        if len(fields) >= MOST_FIELDS:
            raise BadForm(f"it has more than {MOST_FIELDS} fields")
        fields.append(_field(body[start:end], view[min(end + 4, until) : until]))
        at = until + 2


def _field(header: bytes, content: memoryview) -> Field:
    disposition = _DISPOSITION.search(header.replace(b"\r\n", b"\n"))
    if disposition is None:
        raise BadForm("a field has no Content-Disposition: form-data")
    name = _NAME.search(disposition[1])
    if name is None:
        raise BadForm("a field has no name")
    return Field(_text(name[1]), content)


def _text(value: bytes) -> str:
    for escape, plain in _ESCAPES:
        value = value.replace(escape, plain)
    return value.decode("utf-8", "replace")
