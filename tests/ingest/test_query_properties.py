"""The query parser takes any text: an answer, never a surprise."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from hypothesis import example, given
from hypothesis import strategies as st

from edge.ingest.query import ENCODINGS, MAX_TAG_CHARACTERS, MediaQuery, parse_media_query
from edge.session.names import name_problem

NAMES = (
    "sessionId", "lang", "provider", "encoding", "tag", "sendBack", "sendBackInterim",
    "useDispatcher", "times", "errors", "info", "transcribe", "deepgram_mip_opt_out", "x",
)  # fmt: skip
texts = st.text(max_size=12)
pairs = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["true", "false", "", "opus"]) | texts),
    max_size=8,
)


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
@example("%")
@example("&&==;%ff%00+")
@example("encoding=%ed%a0%80")
def test_any_text_gives_a_query_or_one_reason(query: str) -> None:
    answer = parse_media_query(query)
    if isinstance(answer, str):
        assert answer.startswith(("Invalid encoding parameter", "Invalid tag", "Invalid sessionId"))
        answer.encode()
    else:
        assert answer.encoding in ENCODINGS


@given(pairs)
def test_the_first_value_of_each_name_counts(given_pairs: list[tuple[str, str]]) -> None:
    first = dict(reversed(given_pairs))
    answer = parse_media_query(urlencode(given_pairs, quote_via=quote))
    if (encoding := first.get("encoding") or "opus") not in ENCODINGS:
        assert isinstance(answer, str)
        assert encoding in answer
        return
    session_id = first.get("sessionId") or None
    if session_id is not None and name_problem(session_id):
        assert isinstance(answer, str) and "sessionId" in answer
        return
    assert answer == MediaQuery(
        session_id=session_id,
        language=first.get("lang") or None,
        provider=first.get("provider", "").lower() or None,
        encoding=encoding,
        finals=first.get("sendBack") == "true",
        interims=first.get("sendBackInterim") == "true",
        labels=tuple(value for name, value in given_pairs if name == "tag" and value),
        mip_opt_out=(
            first["deepgram_mip_opt_out"] == "true" if "deepgram_mip_opt_out" in first else None
        ),
        use_dispatcher=first["useDispatcher"] == "true" if "useDispatcher" in first else None,
        times=first.get("times") == "true",
        errors=first.get("errors") == "true",
        info=first.get("info") != "false",
    )


@given(st.lists(st.integers(0, 2 * MAX_TAG_CHARACTERS), max_size=4))
def test_a_tag_is_refused_by_its_length_alone(lengths: list[int]) -> None:
    query = "&".join("tag=" + "é" * length for length in lengths)
    refused = any(length > MAX_TAG_CHARACTERS for length in lengths)
    assert isinstance(parse_media_query(query), str) == refused
