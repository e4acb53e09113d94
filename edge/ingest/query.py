"""The query of ``/transcribe``: what a media server may ask for, and what is refused at once."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from edge.session.names import name_problem

MAX_TAG_CHARACTERS = 128
ENCODINGS = ("opus", "ogg-opus", "webm")


class MediaQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The validated query; booleans are true only for the exact text ``true``."""

    session_id: str | None = None
    language: str | None = None
    provider: str | None = None
    """Lower-cased name, not yet checked against the recognizers that exist."""
    encoding: str = "opus"
    """Framing of media payloads on tags that send no ``start``."""
    finals: bool = False
    interims: bool = False
    labels: tuple[str, ...] = ()
    """``tag`` parameters: labels for the recognizer's records, not names of participants."""
    custom_url: str | None = None
    """``openaiCustomUrl``: a recognizer's service that the client brings; it may hold a key."""
    mip_opt_out: bool | None = None
    """``deepgram_mip_opt_out``; None leaves it to the setting."""
    use_dispatcher: bool | None = None
    """None leaves it to the setting; anything but ``true`` means off."""
    times: bool = False
    errors: bool = False
    info: bool = True


def parse_media_query(query: str) -> MediaQuery | str:
    """Return the validated query, or the body of the 400 that refuses it.

    Percent sequences that are not UTF-8 become replacement characters, unknown names are ignored,
    and of a repeated name the first value counts, as in the browsers' URLSearchParams.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(reversed(pairs))

    encoding = values.get("encoding") or "opus"
    if encoding not in ENCODINGS:
        return f'Invalid encoding parameter: "{encoding}". Valid values are: {", ".join(ENCODINGS)}'
    labels = tuple(value for name, value in pairs if name == "tag" and value)
    for tag in labels:
        if len(tag) > MAX_TAG_CHARACTERS:
            return (
                f'Invalid tag: "{tag[:50]}..." exceeds maximum length of {MAX_TAG_CHARACTERS} '
                f"characters (actual: {len(tag)})"
            )
    session_id = values.get("sessionId") or None
    if session_id is not None and (problem := name_problem(session_id)):
        return f"Invalid sessionId parameter: {problem}; leave it out or send another name"

    def is_true(name: str) -> bool:
        return values.get(name) == "true"

    return MediaQuery(
        session_id=session_id,
        language=values.get("lang") or None,
        provider=(values.get("provider") or "").lower() or None,
        encoding=encoding,
        finals=is_true("sendBack"),
        interims=is_true("sendBackInterim"),
        labels=labels,
        custom_url=values.get("openaiCustomUrl") or None,
        mip_opt_out=(is_true("deepgram_mip_opt_out") if "deepgram_mip_opt_out" in values else None),
        use_dispatcher=is_true("useDispatcher") if "useDispatcher" in values else None,
        times=is_true("times"),
        errors=is_true("errors"),
        info=values.get("info") != "false",
    )
