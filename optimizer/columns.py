"""Tables of ten million rows that say little: a column may be one number everywhere, or the same array as another.

What is done to tables here leaves both as they are where it can, and ``renewed`` makes one in the memory of another:
most of the time such a table takes is for memory that is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from optimizer.market import Ints

BLOCK = 1 << 16
"""Rows worked on together, so that they stay near the processor."""

Columns = Mapping[str, Ints]
"""Of equal length, by name."""
Run = tuple[int, int, int]
"""Rows that stay together: which table they are in, from, to before."""
SPARE = 8
"""A column has room to grow by one row in so many."""


def joined(tables: list[dict[str, Ints]], names: Sequence[str]) -> dict[str, Ints]:
    """One table of several, one after the other; these are emptied on the way.

    Column by column, since memory that is given back is had again for nothing and new memory is not.
    """
    whole: dict[str, Ints] = {}
    for name in names:
        if name in whole:
            continue
        alike = [other for other in names if all(table.get(other) is table[name] for table in tables)]
        column = _end_to_end([table[name] for table in tables])
        for other in alike:
            whole[other] = column
            for table in tables:
                del table[other]
    return whole


def copied(tables: Sequence[Columns], runs: Sequence[Run]) -> dict[str, Ints]:
    """One table of runs of rows."""

    def column(name: str) -> Ints:
        return _end_to_end([tables[which][name][low:high] for which, low, high in runs])

    return _each(tables, column)


def renewed(old: Columns, fresh: Columns, runs: Sequence[Run]) -> dict[str, Ints]:
    """As ``copied`` of these two, and in the memory of the first, which says nothing any more afterwards.

    The runs of the old table must be in its own order.
    """
    spent = [id(old[name]) for name in _twins((old, fresh)) if old[name].strides != (0,)]
    if len(set(spent)) < len(spent):
        return copied((old, fresh), runs)  # one column of old becomes two
    ends = np.cumsum([high - low for _, low, high in runs]).tolist()
    begins = [end - (high - low) for end, (_, low, high) in zip(ends, runs, strict=True)]
    stay = [(begin, low, high) for begin, (which, low, high) in zip(begins, runs, strict=True) if which == 0]
    come = [(begin, low, high) for begin, (which, low, high) in zip(begins, runs, strict=True) if which == 1]

    def column(name: str) -> Ints:
        whole = room(old[name])
        if whole.strides == (0,) or len(whole) < (ends or [0])[-1]:
            return _end_to_end([(old, fresh)[which][name][low:high] for which, low, high in runs])
        # Those that go down, from the first; those that go up, from the last: none is written over before it is read.
        for begin, low, high in (each for each in stay if each[0] < each[1]):
            for at in range(0, high - low, BLOCK):
                till = min(at + BLOCK, high - low)
                whole[begin + at : begin + till] = whole[low + at : low + till]
        for begin, low, high in (each for each in reversed(stay) if each[0] > each[1]):
            for till in range(high - low, 0, -BLOCK):
                at = max(0, till - BLOCK)
                whole[begin + at : begin + till] = whole[low + at : low + till]
        for begin, low, high in come:
            whole[begin : begin + high - low] = fresh[name][low:high]
        return whole[: (ends or [0])[-1]]

    return _each((old, fresh), column)


def numbered(counts: Ints, into: Ints) -> Ints:
    """0 as often as the first says, 1 as often as the second, …: in another column's memory where that has room."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    column = room(into)[:total] if len(room(into)) >= total else _roomy(total)
    for low in range(0, len(counts), 256):
        some = counts[low : low + 256]
        first, last = int(ends[low] - counts[low]), int(ends[low + len(some) - 1])
        column[first:last] = np.repeat(np.arange(low, low + len(some)), some)
    return column


def room(column: Ints) -> Ints:
    """All of the memory that a column is the beginning of."""
    base = column.base
    if not isinstance(base, np.ndarray) or base.ndim != 1 or base.dtype != column.dtype or not base.flags.owndata:
        return column
    begins = base.ctypes.data == column.ctypes.data
    return base if begins and column.strides == base.strides else column


def _twins(tables: Sequence[Columns]) -> Mapping[str, list[str]]:
    """The names of what is one array under several names in all of these tables, by the first of them."""
    twins: dict[str, list[str]] = {}
    for name in tables[0]:
        alike = (other for other in twins if all(table[other] is table[name] for table in tables))
        twins.setdefault(next(alike, name), []).append(name)
    return twins


def _each(tables: Sequence[Columns], column: Callable[[str], Ints]) -> dict[str, Ints]:
    """A table of such columns, twins made once."""
    twins = _twins(tables)
    # Copying holds no lock of the interpreter's, and the other core is idle meanwhile.
    with ThreadPoolExecutor(max_workers=2) as pool:
        whole = dict(zip(twins, pool.map(column, twins), strict=True))
    return {name: whole[first] for first, names in twins.items() for name in names}


def after(few: Columns, table: Columns) -> dict[str, Ints]:
    """The table with a few rows before it."""
    whole: dict[str, Ints] = {}
    for name, each in table.items():
        new = few[name]
        twins = (other for other in whole if table[other] is each and bool((few[other] == new).all()))
        twin = next(twins, None)
        if twin is not None:
            whole[name] = whole[twin]
        elif len(each) and each.strides == (0,) and bool((new == each[0]).all()):
            whole[name] = np.broadcast_to(each[0], (len(new) + len(each),))
        else:
            whole[name] = np.concatenate((new, each))
    return whole


def ordered(table: Columns, order: Ints | None) -> dict[str, Ints]:
    """The table in another order; None: as it is."""
    known: dict[int, Ints] = {}
    for each in table.values():
        if id(each) not in known:
            known[id(each)] = each if order is None or each.strides == (0,) else each[order]
    return {name: known[id(each)] for name, each in table.items()}


def _end_to_end(parts: list[Ints]) -> Ints:
    filled = [part for part in parts if len(part)]
    if not filled:
        return np.zeros(0, dtype=np.int64)
    if all(part.strides == (0,) for part in filled) and len({int(part[0]) for part in filled}) == 1:
        return np.broadcast_to(filled[0][:1].copy()[0], (sum(len(part) for part in filled),))
    return np.concatenate(filled, out=_roomy(sum(map(len, filled))))


def _roomy(length: int) -> Ints:
    """A column that a somewhat longer one can take the place of."""
    return np.empty(length + length // SPARE, dtype=np.int64)[:length]
