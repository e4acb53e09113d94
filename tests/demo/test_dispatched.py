"""The demo sees whether what was dispatched are the finals, each participant's in order."""

from __future__ import annotations

import pytest

from edge.demo.dispatched import DispatchedMessage, differences

FINALS = {"anna": ["one", "", "two"], "bert": ["three"], "carl": []}


def dispatched(*messages: str) -> list[DispatchedMessage]:
    return [DispatchedMessage(*message.split(":")) for message in messages]


def test_the_finals_in_any_order_of_participants_are_fine() -> None:
    assert differences(dispatched("bert:three", "anna:one", "anna:two"), FINALS) == []


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["anna:one", "bert:three"], "2 finals of anna, but 1 dispatched"),
        (
            ["anna:one", "anna:two", "bert:three", "bert:three"],
            "1 finals of bert, but 2 dispatched",
        ),
        (["anna:two", "anna:one", "bert:three"], "finals of anna are others or out of order"),
        (["anna:one", "anna:to", "bert:three"], "finals of anna are others or out of order"),
        (["anna:one", "anna:two", "bert:three", "carl:x"], "0 finals of carl, but 1 dispatched"),
    ],
)
def test_anything_else_is_named(messages: list[str], said: str) -> None:
    [difference] = differences(dispatched(*messages), FINALS)
    assert said in difference
