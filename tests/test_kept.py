"""What is kept for a while is bounded, forgets the oldest first, and may be used from many threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.kit.kept import Kept


def test_the_oldest_is_forgotten_first() -> None:
    kept: Kept[str, int] = Kept(2)
    for number, key in enumerate("abac"):
        kept.keep(key, number)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == (None, 1, 3, 2)
    kept.clear()
    assert (kept.get("c"), len(kept)) == (None, 0)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_many_threads_may_keep_things_at_once() -> None:
    kept: Kept[tuple[int, int], int] = Kept(8)

    def add(thread: int) -> None:
        for number in range(5_000):
            kept.keep((thread, number), number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert len(kept) == 8
