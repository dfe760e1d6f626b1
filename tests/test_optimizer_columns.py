"""A table that takes the place of another in its memory says what a new table would say."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import columns
from optimizer.columns import Run, copied, joined, numbered, renewed, room
from optimizer.market import Ints
from optimizer.memory import Memory
from optimizer.pairs import compile_pairs
from tests.test_optimizer import crowd
from tests.test_optimizer_memory import same


def table(data: st.DataObject, rows: int, *, low: int) -> dict[str, Ints]:
    """Columns as pairs have them: one of its own, one that is a number everywhere, one that is another's array."""
    first = np.arange(low, low + rows)
    return {
        "a": first,
        "b": first if data.draw(st.booleans(), label="b is a") else -first,
        "c": np.broadcast_to(np.int64(data.draw(st.sampled_from([1, 2]))), (rows,)),
        "d": np.arange(rows) * 3,
    }


@st.composite
def runs(draw: st.DrawFn, old: int, fresh: int) -> list[Run]:
    """Some rows of the old table in their order, all of the fresh between them."""
    cuts = sorted({0, old, *draw(st.lists(st.integers(0, old), max_size=8))})
    stay = [(0, low, high) for low, high in pairwise(cuts) if draw(st.integers(0, 3))]
    edges = sorted({0, fresh, *draw(st.lists(st.integers(0, fresh), max_size=4))})
    found: list[Run] = list(stay)
    for run in [(1, low, high) for low, high in pairwise(edges)]:
        at = draw(st.integers(0, len(found)))
        found.insert(at, run)
    return found


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_table_in_the_memory_of_another_is_the_one_that_copying_makes(data: st.DataObject) -> None:
    old_rows, fresh_rows = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK", data.draw(st.integers(1, 70)))
        patch.setattr(columns, "SPARE", data.draw(st.sampled_from([1, 2, 8])))
        old = joined([table(data, old_rows, low=0)], ("a", "b", "c", "d"))
        fresh = table(data, fresh_rows, low=1000)
        which = data.draw(runs(old_rows, fresh_rows))
        wanted = {name: column.tolist() for name, column in copied((old, fresh), which).items()}
        assert {name: column.tolist() for name, column in renewed(old, fresh, which).items()} == wanted


def test_a_column_with_room_for_it_is_renewed_where_it_lies() -> None:
    old = joined([{"a": np.arange(64)}], ("a",))
    made = renewed(old, {"a": np.arange(100, 104)}, [(0, 0, 10), (1, 0, 4), (0, 12, 64)])
    assert np.shares_memory(made["a"], old["a"])
    assert len(room(made["a"])) == len(room(old["a"])) == 72


@given(counts=st.lists(st.integers(0, 5), max_size=600), before=st.integers(0, 1500))
def test_rows_are_numbered_by_request_wherever_the_numbers_are_kept(counts: list[int], before: int) -> None:
    kept = np.full(before, -1)
    found = numbered(np.array(counts, dtype=np.int64), kept)
    assert found.tolist() == [number for number, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_pairs_in_the_memory_of_those_before_are_as_if_there_had_been_none(seed: int) -> None:
    rng = random.Random(seed)
    whole = crowd(rng, asks=120, groups=15)
    memory = Memory()
    for _ in range(8):
        asks = tuple(each for each in whole.asks if rng.random() < 0.9)
        problem = replace(whole, asks=asks)
        memory.pairs = compile_pairs(problem, memory.taken(), spend=True)
        same(memory.pairs, compile_pairs(problem))
