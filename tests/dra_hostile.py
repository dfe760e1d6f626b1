"""Objects as a broken or hostile driver might write them: good ones with any value in any place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("x" * 100_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _spots(child, (*path, key))


@st.composite
def spoiled(draw: st.DrawFn, sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with one of its values replaced by anything."""
    raw = copy.deepcopy(sample)
    path = draw(st.sampled_from([spot for spot in _spots(sample) if spot]))
    inside: Any = raw
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = draw(_ANYTHING)
    return raw
