"""Tables of ten million rows that say little: a column may be one number everywhere, or the same array as another.

What is done to tables here leaves both as they are where it can: most of the time such a table takes is for memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from optimizer.market import Ints

Columns = Mapping[str, Ints]
"""Of equal length, by name."""


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


def copied(tables: Sequence[Columns], runs: Sequence[tuple[int, int, int]]) -> dict[str, Ints]:
    """One table of runs of rows (which table, from, to before)."""
    twin: dict[str, str] = {}
    for name in tables[0]:
        alike = (other for other in twin if all(table[other] is table[name] for table in tables))
        twin[name] = next(alike, name)

    def column(name: str) -> Ints:
        return _end_to_end([tables[which][name][low:high] for which, low, high in runs])

    # Copying holds no lock of the interpreter's, and the other core is idle meanwhile.
    with ThreadPoolExecutor(max_workers=2) as pool:
        names = [name for name, first in twin.items() if name == first]
        whole = dict(zip(names, pool.map(column, names), strict=True))
    return {name: whole[first] for name, first in twin.items()}


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
    return np.concatenate(filled)
