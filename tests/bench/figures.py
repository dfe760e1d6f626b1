"""Numbers about numbers: percentiles, shares, and how they are written. Pure.

Percentiles are by nearest rank: a figure that is printed is one that was measured, never one in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest measured value that at least `percent` of all are not above (nearest rank).

    :raises ValueError: nothing was measured, or `percent` is not in (0, 100].
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    if not 0 < percent <= 100:
        raise ValueError(f"{percent} is not a percentage above 0")
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def shares(parts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Which fraction of the whole each part took, over all measurements. They sum to 1 unless all are 0."""
    sums = {name: math.fsum(values) for name, values in parts.items()}
    whole = math.fsum(sums.values())
    return {name: value / whole if whole else 0.0 for name, value in sums.items()}


def steps(times: Mapping[str, float], order: Sequence[str]) -> dict[str, float]:
    """Seconds from each step to the next that was seen, named by the step that was reached.

    A step that nobody saw is left out, and its time counts to the next one that was: what is summed up is the whole.

    :param times: when each step was first seen.
    """
    seen = [step for step in order if step in times]
    return {after: max(times[after] - times[before], 0.0) for before, after in pairwise(seen)}


def seconds(value: float) -> str:
    """Three digits and a unit a person reads: 85 µs, 12.3 ms, 1.25 s, 160 s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size or unit == "µs":
            return f"{_three(value / size)} {unit}"
    raise AssertionError


def mebibytes(count: int) -> str:
    """Bytes as MiB."""
    return f"{count / (1 << 20):.0f} MiB"


def rate(value: float) -> str:
    """Things in a second."""
    return f"{_three(value) if value < 1_000 else f'{value:,.0f}'}/s"


def percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def _three(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
