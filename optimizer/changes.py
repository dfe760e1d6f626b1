"""What would have to change for a refused ask to be placed beside the plan: the smallest change of each kind.

Each proposal touches one field and is then applied and checked, by the independent checker for the request against the
group and by the ledger for what the others leave. A proposal that fails its check is dropped, never reworded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from optimizer.check import cost_of, unsuitable
from optimizer.filter import Bools, Ints, Verdicts
from optimizer.ledger import Ledger
from optimizer.pairs import Pairs
from optimizer.problem import MAX_MONEY, MAX_PRICE, Ask, Confidential
from optimizer.solution import Change, Field, Why

AMOUNT = Why.COUNT | Why.NODE | Why.SHARED | Why.BUDGET | Why.QUOTA | Why.TOTAL_CAP
MONEY = Why.BUDGET | Why.TOTAL_CAP


@dataclass(frozen=True)
class _Case:
    """One refused ask with everything the proposals read; arrays are over groups."""

    pairs: Pairs
    ledger: Ledger
    ask: Ask
    why: Ints
    units: Ints
    devices: Ints
    cost: Ints
    price: Ints
    tier: Ints
    money: int
    """µUSD that its budgets have left."""
    quota: int
    room: Ints
    """Units each group can still give to this ask."""
    alone: Mapping[Why, int]
    """Predicates that alone remove some group: lifting any other helps nobody."""

    def only(self, *bits: Why) -> Bools:
        """Groups that nothing but these removes (or nothing at all)."""
        allowed = np.int64(sum(bits))
        clear: Bools = (self.why & ~allowed) == 0
        return clear

    def freed(self, bit: Why) -> Bools | None:
        """Groups that only this predicate removes and that have the units and fit the purse; None where it has none."""
        return self.fits() & (self.why == bit) if bit in self.alone else None

    def fits(self) -> Bools:
        """Groups that have the units, and whose cost and devices the ask's budgets and quotas hold."""
        return (self.units <= self.room) & (self.cost <= self.money) & (self.devices <= self.quota)


def changes(
    pairs: Pairs, ledger: Ledger, seen: Verdicts, row: int, ask: int, alone: Mapping[Why, int]
) -> tuple[Change, ...]:
    """Every kind of change that helps, each in its smallest form; ``alone`` counts what single predicates remove."""
    want = pairs.asks[ask]
    room = np.minimum(ledger.room, ledger.largest) if want.same_node else ledger.room
    case = _Case(
        pairs=pairs,
        ledger=ledger,
        ask=want,
        why=seen.why[row].astype(np.int64),
        units=seen.units[row],
        devices=seen.devices[row],
        cost=seen.cost[row],
        price=seen.price[row],
        tier=seen.tier[row],
        money=min((ledger.budgets[name] for name in want.budgets), default=MAX_MONEY),
        quota=min((ledger.quotas[name] for name in want.quotas), default=MAX_MONEY),
        room=room,
        alone=alone,
    )
    found = (*_caps(case), *_places(case), *_amounts(case), *_wishes(case), *_allowances(case))
    return tuple(change for change in found if change is not None)


def _caps(case: _Case) -> Iterator[Change | None]:
    ask = case.ask
    at = _least(case.price, case.freed(Why.PRICE_CAP))
    if at is not None and case.price[at] <= MAX_PRICE:
        cap = int(case.price[at])
        yield _checked(case, at, Field.PRICE_CAP, cap, replace(ask, price_cap_micros=cap))
    at = _least(case.price, case.freed(Why.TIER_PRICE))
    if at is not None and case.price[at] <= MAX_PRICE:
        cap, rank = int(case.price[at]), int(case.tier[at])
        raised = replace(ask.tiers[rank], price_cap_micros=cap)
        changed = replace(ask, tiers=(*ask.tiers[:rank], raised, *ask.tiers[rank + 1 :]))
        yield _checked(case, at, Field.TIER_CAP, cap, changed, name=raised.name or str(rank))
    at = _least(case.cost, case.freed(Why.TOTAL_CAP))
    if at is not None and case.cost[at] <= MAX_MONEY:
        cap = int(case.cost[at])
        yield _checked(case, at, Field.TOTAL_CAP, cap, replace(ask, total_cap_micros=cap))


def _places(case: _Case) -> Iterator[Change | None]:
    ask = case.ask
    at = _least(case.cost, case.freed(Why.REGION))
    if at is not None:
        region = case.pairs.groups[at].region
        yield _checked(case, at, Field.REGION, region, replace(ask, regions=(ask.regions or frozenset()) | {region}))
    at = _least(case.cost, case.freed(Why.PROVIDER))
    if at is not None:
        name = case.pairs.groups[at].provider
        yield _checked(case, at, Field.PROVIDER, name, replace(ask, providers=(ask.providers or frozenset()) | {name}))
    at = _least(case.cost, case.freed(Why.CLUSTER))
    if at is not None:
        name = case.pairs.groups[at].cluster
        yield _checked(case, at, Field.CLUSTER, name, replace(ask, clusters=(ask.clusters or frozenset()) | {name}))


def _amounts(case: _Case) -> Iterator[Change | None]:
    """Fewer devices, then another duration; the group that keeps most of what was asked."""
    ask, market = case.ask, case.pairs.market
    purse = min(case.money, MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros)
    left = purse - market.fees(tuple(ask.transfer_micros.items()))
    units = np.minimum(np.minimum(case.room, case.quota // market.unit), case.units - 1)
    units = np.minimum(units, _affordable(left, market.price * market.unit, ask.duration_s))
    devices = np.where(case.only(*AMOUNT), units * market.unit, 0)
    at = _most(devices, case.price)
    if at is not None:
        count = int(devices[at])
        yield _checked(case, at, Field.DEVICES, count, replace(ask, devices=count))
    longest = np.minimum(market.longest, _affordable(left, market.price * case.devices, 1))
    roomy = (case.units <= case.room) & (case.devices <= case.quota)
    good = roomy & case.only(Why.TOO_LONG, *MONEY) & (longest < ask.duration_s) & (longest >= market.shortest)
    at = _most(np.where(good, longest, 0), case.price)
    if at is not None:
        seconds = int(longest[at])
        yield _checked(case, at, Field.DURATION, seconds, replace(ask, duration_s=seconds))
    at = _least(market.shortest, roomy & (case.why == Why.TOO_SHORT))
    if at is not None:
        seconds = int(market.shortest[at])
        yield _checked(case, at, Field.DURATION, seconds, replace(ask, duration_s=seconds))


def _wishes(case: _Case) -> Iterator[Change | None]:
    ask = case.ask
    at = _least(case.cost, case.freed(Why.CONFIDENTIAL))
    if at is not None:
        yield _checked(case, at, Field.CONFIDENTIAL, False, replace(ask, confidential=Confidential.NONE))
    if ask.same_node:
        free = (case.units <= case.ledger.room) & (case.cost <= case.money) & (case.devices <= case.quota)
        at = _least(case.cost, free & case.only(Why.NODE))
        if at is not None:
            yield _checked(case, at, Field.SAME_NODE, False, replace(ask, same_node=False))


def _allowances(case: _Case) -> Iterator[Change | None]:
    """A single budget or quota that is short; where two are, no single change helps."""
    ask, ledger = case.ask, case.ledger
    at = _least(case.cost, case.only(Why.BUDGET) & (case.units <= case.room) & (case.devices <= case.quota))
    if at is not None and case.cost[at] <= MAX_MONEY:
        short = {name: int(case.cost[at]) - ledger.budgets[name] for name in set(ask.budgets)}
        short = {name: by for name, by in short.items() if by > 0}
        if len(short) == 1:
            (name, by), rest = short.popitem(), replace(ask, budgets=())
            yield _checked(case, at, Field.BUDGET, by, rest, name=name)
    at = _least(case.devices, case.only(Why.QUOTA) & (case.units <= case.room) & (case.cost <= case.money))
    if at is not None:
        short = {name: int(case.devices[at]) - ledger.quotas[name] for name in set(ask.quotas)}
        short = {name: by for name, by in short.items() if by > 0}
        if len(short) == 1:
            (name, by), rest = short.popitem(), replace(ask, quotas=())
            yield _checked(case, at, Field.QUOTA, by, rest, name=name)


def _checked(
    case: _Case, at: int, field: Field, to: int | str | bool, changed: Ask, *, name: str = ""
) -> Change | None:
    group, ledger = case.pairs.groups[at], case.ledger
    units, cost = -(-changed.devices // group.unit), cost_of(changed, group)
    room = int(min(ledger.room[at], ledger.largest[at])) if changed.same_node else int(ledger.room[at])
    if units > room or any(unsuitable(changed, group)):
        return None
    if any(cost > ledger.budgets[budget] for budget in changed.budgets):
        return None
    if any(units * group.unit > ledger.quotas[quota] for quota in changed.quotas):
        return None
    return Change(field=field, to=to, id=name, group=group.id, cost_micros=cost)


def _affordable(purse: Ints, hourly: Ints, seconds: int) -> Ints:
    """How many times a rate of µUSD per hour can be paid for so long; 0 where that leaves 64 bits."""
    beyond = hourly.astype(np.float64) * seconds > 2.0**62
    paid = np.where(beyond, 1, hourly) * seconds
    return np.where(hourly == 0, MAX_MONEY, np.where(beyond, 0, purse * 3600 // np.maximum(1, paid)))


def _least(values: Ints, among: Bools | None) -> int | None:
    if among is None:
        return None
    where = np.flatnonzero(among)
    return int(where[np.argmin(values[where])]) if len(where) else None


def _most(values: Ints, then_least: Ints) -> int | None:
    at = int(np.lexsort((then_least, -values))[0]) if len(values) else 0
    return at if len(values) and values[at] > 0 else None
