"""Utterances that say the same become one, and no word is lost or doubled."""

# ruff: noqa: RUF001

from __future__ import annotations

import math
import random
import time
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.meeting.merge import Merging, merge
from edge.meeting.records import Utterance
from edge.meeting.tokens import tokenize, words
from tests.meeting.support.utterances import again, said

Said = tuple[int, int, str]

VECTORS: dict[int, tuple[list[Said], list[Said]]] = {
    1: (
        [(1, 3, "Hello everyone."), (3, 5, "hello everyone")],
        [(1, 5, "Hello everyone.")],
    ),
    2: (
        [(1, 5, "my name is"), (4, 10, "My name is Alice Johnson.")],
        [(1, 10, "My name is Alice Johnson.")],
    ),
    3: (
        [(1, 10, "My name is Alice Johnson."), (8, 12, "Alice Johnson")],
        [(1, 12, "My name is Alice Johnson.")],
    ),
    4: (
        [
            (1, 10, "I want to talk about the project plan"),
            (4, 13, "about the project plan for next quarter"),
        ],
        [(1, 13, "I want to talk about the project plan for next quarter")],
    ),
    5: (
        [(1, 10, "we should ship it on friday"), (8, 14, "it on friday because of testing")],
        [(1, 14, "we should ship it on friday because of testing")],
    ),
    6: (
        [(1, 10, "we should ship on friday"), (8, 14, "on friday because of testing")],
        [(1, 10, "we should ship on friday"), (8, 14, "on friday because of testing")],
    ),
    7: (
        [(1, 3, "hello there"), (5, 7, "hello there")],
        [(1, 3, "hello there"), (5, 7, "hello there")],
    ),
    8: ([(1, 3, "hello there"), (4, 7, "Hello, there!")], [(1, 7, "hello there")]),
    9: (
        [(1, 4, "大家好，我是小明。"), (4, 7, "大家好 我是小明")],
        [(1, 7, "大家好，我是小明。")],
    ),
    10: (
        [(1, 4, "我叫小明"), (3, 8, "大家好，我叫小明，来自北京。")],
        [(1, 8, "大家好，我叫小明，来自北京。")],
    ),
    # A Han character is a word, so that the shared end is found.
    11: (
        [(1, 10, "我觉得这个方案可以先上线"), (4, 13, "方案可以先上线然后再优化")],
        [(1, 13, "我觉得这个方案可以先上线然后再优化")],
    ),
    12: (
        [(1, 10, "我们 今天 讨论 项目 计划"), (4, 13, "讨论 项目 计划 的 细节")],
        [(1, 13, "我们 今天 讨论 项目 计划 的 细节")],
    ),
    13: (
        [
            (1, 10, "我们用 Kubernetes 做 deployment 和 rollback"),
            (4, 13, "做 deployment 和 rollback 测试"),
        ],
        [(1, 13, "我们用 Kubernetes 做 deployment 和 rollback 测试")],
    ),
    # The same words in another order are another sentence.
    14: (
        [
            (1, 10, "the quick brown fox jumps over the lazy dog near a river"),
            (9, 14, "the quick brown fox jumps over a lazy dog near the river"),
        ],
        [
            (1, 10, "the quick brown fox jumps over the lazy dog near a river"),
            (9, 14, "the quick brown fox jumps over a lazy dog near the river"),
        ],
    ),
    15: (
        [
            (1, 10, "one two three four five"),
            (4, 13, "three four five six seven"),
            (7, 16, "five six seven eight nine"),
        ],
        [(1, 16, "one two three four five six seven eight nine")],
    ),
    16: (
        [(8, 14, "it on friday because of testing"), (1, 10, "we should ship it on friday")],
        [(1, 14, "we should ship it on friday because of testing")],
    ),
    17: ([(1, 3, "   "), (2, 4, "hi")], [(2, 4, "hi")]),
    18: ([(1, 3, "……"), (2, 4, "……")], [(1, 3, "……"), (2, 4, "……")]),
    # No words are not part of other words: nothing says that both are the same.
    19: (
        [(1, 3, "。"), (2, 4, "hello world")],
        [(1, 3, "。"), (2, 4, "hello world")],
    ),
    20: (
        [(1, 10, "I don't think it's ready"), (4, 13, "don't think it's ready for launch")],
        [(1, 13, "I don't think it's ready for launch")],
    ),
    21: (
        [(1, 20, "alpha beta gamma"), (5, 8, "delta"), (21, 22, "alpha beta gamma")],
        [(1, 20, "alpha beta gamma"), (5, 8, "delta"), (21, 22, "alpha beta gamma")],
    ),
    # What follows is a turn of its own, though its words were said before.
    22: (
        [(1, 3, "I really like it"), (4, 5, "I")],
        [(1, 3, "I really like it"), (4, 5, "I")],
    ),
    23: ([(1, 4, "大家好"), (5, 6, "好")], [(1, 4, "大家好"), (5, 6, "好")]),
    # Words are compared, not letters: "no" is not in "know".
    24: (
        [(1, 3, "no"), (4, 6, "I do not know")],
        [(1, 3, "no"), (4, 6, "I do not know")],
    ),
    # The cut is counted in words of both texts, whatever stands between them.
    25: (
        [(1, 4, "alpha - bravo charlie delta"), (3, 6, "bravo - charlie delta echo")],
        [(1, 6, "alpha - bravo charlie delta echo")],
    ),
    # Every script has words.
    26: (
        [(1, 5, "こんにちは世界"), (4, 8, "さようなら世界")],
        [(1, 5, "こんにちは世界"), (4, 8, "さようなら世界")],
    ),
    27: (
        [(1, 5, "Привет мир"), (4, 8, "Пока всем")],
        [(1, 5, "Привет мир"), (4, 8, "Пока всем")],
    ),
    # As 14.
    28: (
        [(1, 10, "a b c d e f g h i j"), (8, 15, "j i h g f e d c b a")],
        [(1, 10, "a b c d e f g h i j"), (8, 15, "j i h g f e d c b a")],
    ),
}
"""Those of the recorder's protocol; where the outcome is another one, it says why."""


def spoken(said_in_order: list[Said]) -> list[Utterance]:
    """Utterances in the order in which they came."""
    return [said(*each, number=number) for number, each in enumerate(said_in_order)]


@pytest.mark.parametrize("number", VECTORS)
def test_vector(number: int) -> None:
    given_, wanted = VECTORS[number]
    merged = merge(spoken(given_))
    assert [(each.start_seq, each.end_seq, each.text) for each in merged] == wanted


def test_a_merged_entry_is_named_after_its_first_member_and_lists_all() -> None:
    (merged,) = merge(spoken(VECTORS[15][0]))
    assert merged.merged_id == "s-students-m-00000010"
    assert merged.source_utterance_ids == (
        "s-students-00000010-0",
        "s-students-00000013-1",
        "s-students-00000016-2",
    )
    assert (merged.start_ms, merged.end_ms, merged.duration_ms) == (0, 16000, 16000)
    assert merged.created_at == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize("text", ["Привет, мир", "こんにちは世界", "안녕하세요", "Ça va, été?"])
def test_the_same_words_merge_in_any_script(text: str) -> None:
    same = text.upper().replace(",", " ")
    assert [each.text for each in merge(spoken([(1, 4, text), (3, 6, same)]))] == [text]


def test_a_short_turn_in_the_same_second_is_kept() -> None:
    """A chunk may hold the end of one sentence and all of the next, which is no part of it."""
    first = msgspec.structs.replace(said(1, 4, "我觉得很好", 0), end_ms=3400)
    second = msgspec.structs.replace(said(4, 4, "好", 1), start_ms=3500, end_ms=3900)
    assert [each.text for each in merge([first, second])] == ["我觉得很好", "好"]


def test_a_stitch_keeps_the_second_texts_punctuation() -> None:
    merged = merge(
        spoken([(1, 10, "we ship it on Friday."), (8, 14, "it on Friday, because it is ready.")])
    )
    assert [each.text for each in merged] == ["we ship it on Friday, because it is ready."]


def test_a_long_overlap_of_han_is_found() -> None:
    """Seven of ten seconds are about forty characters."""
    text = "".join(chr(0x4E00 + index) for index in range(90))
    merged = merge(spoken([(1, 10, text[:60]), (4, 13, text[20:])]))
    assert [each.text for each in merged] == [text]


def test_a_word_made_of_several_characters_is_never_cut() -> None:
    """The company sign is four words in one character."""
    merged = merge(spoken([(1, 3, "我 在 株 式 会"), (2, 5, "在 ㍿ 工作")]))
    assert "".join(each.text for each in merged).count("㍿") == 1


_WORDS = [*["no", "know", "I", "don't", "don", "ready", "Été", "мир"], *"你好世は한½"]
_JOINTS = [" ", " ", ", ", ". ", " - ", "。", "", "…"]


@st.composite
def _texts(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.tuples(st.sampled_from(_WORDS), st.sampled_from(_JOINTS)), max_size=9))
    return "".join(word + joint for word, joint in parts)


@st.composite
def _utterances(draw: st.DrawFn) -> list[Utterance]:
    count = draw(st.integers(0, 8))
    utterances = []
    for number in range(count):
        start = draw(st.integers(1, 8))
        end = start + draw(st.integers(0, 4))
        text = draw(_texts() | st.text(max_size=12))
        made = draw(st.integers(0, 2))
        utterances.append(
            msgspec.structs.replace(
                said(start, end, text, made), utterance_id=f"s-{end:08d}-{number}"
            )
        )
    return utterances


@given(_utterances())
def test_no_word_of_one_utterance_alone_is_lost_or_doubled(utterances: list[Utterance]) -> None:
    known = [Counter(words(each.text)) for each in utterances]
    found: Counter[str] = Counter()
    for each in merge(utterances):
        found.update(words(each.text))
    assert set(found) == {word for counts in known for word in counts}
    for word, count in found.items():
        holders = [counts[word] for counts in known if word in counts]
        assert count <= sum(holders)
        assert count >= max(holders)
        if len(holders) == 1:
            assert count == holders[0]


@given(_utterances())
def test_merging_what_was_merged_changes_nothing(utterances: list[Utterance]) -> None:
    once = merge(utterances)
    twice = merge([again(each) for each in once])
    told = ("text", "start_seq", "end_seq", "start_ms", "end_ms", "created_at")
    assert [[getattr(each, name) for name in told] for each in twice] == [
        [getattr(each, name) for name in told] for each in once
    ]


@given(_utterances(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(
    utterances: list[Utterance], chance: random.Random
) -> None:
    shuffled = utterances[:]
    chance.shuffle(shuffled)
    assert merge(shuffled) == merge(utterances)


@given(_utterances(), st.lists(st.booleans(), min_size=8, max_size=8))
def test_merging_bit_by_bit_gives_the_same(utterances: list[Utterance], looks: list[bool]) -> None:
    merging = Merging()
    for utterance, looked in zip(utterances, looks, strict=False):
        merging.add(utterance)
        if looked:
            merging.merged()
    assert list(merging.merged()) == merge(utterances)


@given(_utterances())
def test_every_utterance_with_a_text_is_in_exactly_one_entry(utterances: list[Utterance]) -> None:
    listed = Counter(name for each in merge(utterances) for name in each.source_utterance_ids)
    assert listed == Counter(each.utterance_id for each in utterances if each.text.strip())


@given(st.text(max_size=60))
def test_words_say_where_they_stand(text: str) -> None:
    last = 0
    for token in tokenize(text):
        assert last <= token.start < token.end <= len(text)
        last = token.start


def _chain(count: int, letters: int, hop: int) -> list[Utterance]:
    """Windows over one long text that never pauses."""
    chance = random.Random(7)
    text = "".join(
        chance.choices([chr(0x4E00 + index) for index in range(2000)], k=count * hop + 99)
    )
    return [
        said(1 + 3 * number, 10 + 3 * number, text[number * hop : number * hop + letters], number)
        for number in range(count)
    ]


@pytest.mark.parametrize("kind", ["turns", "windows"])
def test_ten_thousand_utterances_merge_in_well_under_a_second(kind: str) -> None:
    if kind == "turns":
        chance = random.Random(3)
        vocabulary = [f"word{index}" for index in range(3000)]
        utterances = [
            said(number * 2 + 1, number * 2 + 3, " ".join(chance.choices(vocabulary, k=9)), number)
            for number in range(10_000)
        ]
    else:
        utterances = _chain(10_000, 40, 12)
    spent_s = math.inf
    for _ in range(3):  # a processor that is shared takes longer now and then
        began = time.process_time()
        merged = merge(utterances)
        spent_s = min(spent_s, time.process_time() - began)
        if spent_s < 1.0:
            break
    assert len(merged) == (10_000 if kind == "turns" else 1)
    assert spent_s < 1.0


def test_one_more_utterance_costs_the_same_after_ten_thousand() -> None:
    merging = Merging()
    for utterance in _chain(10_001, 40, 12):
        merging.add(utterance)
    merging.merged()
    costs = []
    for number in range(200):
        merging.add(said(30_100 + 2 * number, 30_101 + 2 * number, "one more", 20_000 + number))
        began = time.process_time()
        merging.merged()
        costs.append(time.process_time() - began)
    assert sorted(costs)[100] < 0.002
