"""What is wrong with an input is said in words for who sent JSON, not for who wrote Python."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.wire.mistakes import mistakes
from broker.wire.requests import CapacityRequest

GOOD: dict[str, Any] = {
    "cluster": "a",
    "devices": {"count": 8},
    "duration": "1h",
    "price_cap": {"amount": "2.40"},
}


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"cluste": "a"}, ("cluste",), "there is no such field here"),
        ({"devices": 8}, ("devices",), "must be an object"),
        ({"devices": {}}, ("devices", "count"), "is missing"),
        ({"devices": {"count": 0}}, ("devices", "count"), "must be at least 1"),
        ({"devices": {"count": 1_000_000}}, ("devices", "count"), "must be at most 1024"),
        ({"devices": {"count": "8"}}, ("devices", "count"), "must be a whole number"),
        ({"cluster": "My Cluster"}, ("cluster",), "lower-case letters, digits and hyphens"),
        ({"where": {"regions": ["eu west"]}}, ("where", "regions", 0), "must be a label value"),
        ({"labels": {str(n): "" for n in range(17)}}, ("labels",), "has more than 16 entries"),
        ({"confidential": "yes"}, ("confidential",), "must be 'none', 'prefer' or 'require'"),
        ({"price_cap": {"amount": "1e3"}}, ("price_cap", "amount"), "write an amount with digits and a point"),
        ({"price_cap": {"amount": "1e-999999999"}}, ("price_cap", "amount"), "write an amount"),
        ({"price_cap": {"amount": "\u0663"}}, ("price_cap", "amount"), "write an amount"),
        ({"total_cap": {"amount": "1000000000.01"}}, ("total_cap", "amount"), "is the unit right?"),
    ],
)
def test_a_mistake_is_told_by_place_and_in_plain_words(
    changes: dict[str, Any], where: tuple[str | int, ...], what: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        CapacityRequest.model_validate({**GOOD, **changes})
    ((place, sentence),) = mistakes(caught.value, most=5)
    assert place == where
    assert what in sentence


def test_a_long_list_of_mistakes_is_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        CapacityRequest.model_validate({**GOOD, **{f"x{n}": n for n in range(50)}})
    assert len(mistakes(caught.value, most=20)) == 20
