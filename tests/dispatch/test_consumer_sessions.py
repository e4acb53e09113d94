"""Whatever becomes of rows that a source holds, each session's come in order and none is lost."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch.seen import Seen
from dispatch.sources.redis import RedisRow
from dispatch.sources.sessions import Sessions

NAMES = ("red", "green", "blue")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(NAMES), st.integers(1, 4)),
        st.tuples(st.just("take"), st.just(""), st.integers(1, 6)),
        st.tuples(st.sampled_from(["settle", "back"]), st.sampled_from(NAMES), st.integers(1, 3)),
        st.tuples(st.just("expire"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


def row(session: str, offset: int) -> RedisRow:
    return RedisRow(f"{session}-{offset}", session, offset, "e", 0, offset, b"")


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_rows_come_in_order_and_one_delivery_of_a_session_at_a_time(
    steps: list[tuple[str, str, int]],
) -> None:
    sessions: Sessions[RedisRow] = Sessions()
    put: dict[str, int] = defaultdict(int)
    settled: dict[str, int] = defaultdict(int)
    out: dict[str, list[RedisRow]] = {}
    for what, session, count in steps:
        held = out.get(session, [])
        if what == "put":
            sessions.put(row(session, put[session] + n) for n in range(count))
            put[session] += count
        elif what == "take":
            for each in sessions.take(count, 1000.0):
                out.setdefault(each.session, []).append(each)
        elif what == "settle" and held:
            sessions.settle(held[:count])
            assert [each.offset for each in held[:count]] == [
                settled[session] + n for n in range(len(held[:count]))
            ]
            settled[session] += len(held[:count])
            del held[:count]
            if not held:
                del out[session]
        elif what == "back" and held:
            sessions.back(held[0], 0.0)
            del out[session]
        elif what == "expire" and not out:
            # What is taken next comes back by itself.
            sessions.take(3, 0.0)
        waiting = sum(put.values()) - sum(settled.values())
        assert sessions.size + sessions.out == waiting
    for each in list(out.values()):
        sessions.back(each[0], 0.0)
    left: dict[str, list[int]] = defaultdict(list)
    for each_row in sessions.take(1000, 1.0):
        left[each_row.session].append(each_row.offset)
    for name in NAMES:
        assert left[name] == list(range(settled[name], put[name]))


def test_seen_ids_are_bounded_in_number_and_time() -> None:
    now_s = 0.0
    seen = Seen(window_s=10.0, limit=3, clock=lambda: now_s)
    seen.add(["a", "b", "c"])
    assert "a" in seen and "d" not in seen
    now_s = 5.0
    seen.add(["a", "d"])
    assert [name for name in "abcd" if name in seen] == ["a", "c", "d"]
    now_s = 11.0
    assert [name for name in "abcd" if name in seen] == ["a", "d"]
    seen.add(["e"])
    assert len(seen) == 3
    now_s = 100.0
    seen.add(())
    assert len(seen) == 0
