"""How large anything may be, and how it is said when it is larger.

Every number of a problem is checked when it is made, so that a ``Problem`` that exists can be solved without overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

MAX_DEVICES = 1_000_000
"""No request and no group is larger than this many devices."""
MAX_PRICE = 10_000_000_000
"""µUSD per device-hour: ten thousand dollars, far above any device on the market."""
MAX_DURATION = 10 * 366 * 86_400
"""Seconds: ten years."""
MAX_MONEY = 10**15
"""µUSD: a billion dollars, the largest budget, cap or cost; sums of thousands of them still fit 64 bits."""
MAX_PRIORITY = 1_000_000_000
"""Priorities lie within ± this, as Kubernetes has it for PriorityClass values that users may set."""
MAX_ROWS = 100_000
"""Most groups, capacity rows, budgets or quotas in one problem."""
MAX_SHARED = 100
"""Most capacity rows that one group is part of."""
MAX_ASKS = 100_000
MAX_PAIRS = 50_000_000
"""Requests × groups × starts: 20,000 × 2,000 fit, in a few GiB; its caller splits what is more, by tenant or region."""
MAX_STARTS = 64
"""Most moments at which a request may start."""
MAX_FORMS = 16
MAX_SPLIT = 64


class BadProblem(ValueError):
    """The problem contradicts itself or is out of range; the message is a sentence for a person."""


class OutOfRange(BadProblem):
    """A number is negative, zero or too large."""


class DuplicateId(BadProblem):
    """Two things of one sort share an id."""


class UnknownId(BadProblem):
    """Something refers to an id that is not in the problem."""


def named(what: str, name: str) -> None:
    """:raises BadProblem: it has no id."""
    if not name:
        raise BadProblem(f"The id of {what} is empty.")


def within(what: str, value: int, low: int, high: int) -> None:
    """:raises OutOfRange: not a whole number from ``low`` to ``high``."""
    # A bool or a float that slipped in would pass the comparison and poison integer arithmetic later.
    if type(value) is not int:
        raise OutOfRange(f"{what[0].upper()}{what[1:]} is {value!r}, not a whole number.")
    if not low <= value <= high:
        raise OutOfRange(f"{what[0].upper()}{what[1:]} is {value}; it must lie between {low} and {high}.")


def window(what: str, from_s: int, until_s: int | None) -> None:
    """:raises OutOfRange: it ends before it begins."""
    within(f"the beginning of {what}", from_s, 0, MAX_DURATION)
    if until_s is not None:
        within(f"the end of {what}", until_s, from_s + 1, MAX_DURATION)


def unique(sort: str, ids: Iterable[str], most: int) -> frozenset[str]:
    """:raises DuplicateId: one of them comes twice. :raises OutOfRange: there are too many."""
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DuplicateId(f"Two of the same sort share an id: {sort} {name!r}.")
        seen.add(name)
    if len(seen) > most:
        raise OutOfRange(f"The problem has {len(seen)} of the sort {sort}; the most is {most}.")
    return frozenset(seen)


def known(where: str, sort: str, ids: Iterable[str], there: Set[str]) -> None:
    """:raises UnknownId: one of them is not there."""
    for name in ids:
        if name not in there:
            raise UnknownId(f"In {where}, {sort} {name!r} is not part of the problem.")
