"""What would have to change for a refused ask to be placed beside the plan: the smallest change of each kind.

Each proposal touches one field and is then applied and checked, by the independent checker for the request against the
group and by the ledger for what the others leave. A proposal that fails its check is dropped, never reworded. Proposals
are about the request in its own form at its first start; only *start later* and *split* look further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optimizer.filter import Verdicts
from optimizer.ledger import Ledger
from optimizer.market import Bools, Ints
from optimizer.pairs import Pairs
from optimizer.problem import MAX_MONEY, MAX_PRICE, Ask, Budget, Confidential, Quota
from optimizer.solution import Change, Field, Why
from optimizer.suits import cost_of, form_of, unsuitable

AMOUNT = Why.COUNT | Why.NODE | Why.SHARED | Why.BUDGET | Why.QUOTA | Why.TOTAL_CAP
MOST_PARTS = 8
"""Over more groups than this and its own allowance a split is not proposed."""
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
    bucket: int
    """Of its first start."""
    span: tuple[int, int]

    @property
    def start_s(self) -> int:
        return int(self.pairs.market.starts[self.bucket])

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
    if want.running is not None:
        return ()
    market = pairs.market
    starts = [at for at, start in enumerate(market.starts.tolist()) if want.not_before_s <= start <= want.latest_s]
    bucket = starts[0] if starts else 0
    span = bucket, market.span(int(market.starts[bucket]), int(market.starts[bucket]) + want.duration_s)[1]
    room = ledger.room(span)
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
        money=min((ledger.budget(name) for name in want.budgets), default=MAX_MONEY),
        quota=min((ledger.quota(name) for name in want.quotas), default=MAX_MONEY),
        room=np.minimum(room, ledger.largest * want.workers) if want.same_node else room,
        alone=alone,
        bucket=bucket,
        span=span,
    )
    found = (
        *_caps(case),
        *_places(case),
        *_amounts(case),
        *_wishes(case),
        *_allowances(case),
        *_later(case),
        *_split(case),
    )
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
    for bit, field, one, many in (
        (Why.REGION, Field.REGION, "region", "regions"),
        (Why.JURISDICTION, Field.JURISDICTION, "jurisdiction", "jurisdictions"),
        (Why.PROVIDER, Field.PROVIDER, "provider", "providers"),
        (Why.CLUSTER, Field.CLUSTER, "cluster", "clusters"),
    ):
        at = _least(case.cost, case.freed(bit))
        if at is not None:
            name = getattr(case.pairs.groups[at], one)
            changed: dict[str, Any] = {many: (getattr(ask, many) or frozenset()) | {name}}
            yield _checked(case, at, field, name, replace(ask, **changed))


def _amounts(case: _Case) -> Iterator[Change | None]:
    """Fewer devices, fewer workers, another duration; the group that keeps most of what was asked."""
    ask, market = case.ask, case.pairs.market
    purse = min(case.money, MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros)
    left = purse - market.fees(tuple(ask.transfer_micros.items()))
    price, workers = market.price[:, case.bucket], ask.workers
    units = np.minimum(np.minimum(case.room, case.quota // market.unit), case.units - 1)
    units = np.minimum(units, _affordable(left, price * market.unit, ask.duration_s)) // workers
    devices = np.where(case.only(*AMOUNT), units * market.unit, 0)
    at = _most(devices, case.price)
    if at is not None:
        count = int(devices[at])
        yield _checked(case, at, Field.DEVICES, count, replace(ask, devices=count))
    yield _fewer_workers(case, left, price)
    longest = np.minimum(market.longest, _affordable(left, price * case.devices, 1))
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


def _fewer_workers(case: _Case, left: Ints, price: Ints) -> Change | None:
    """Workers as they are, but not as many; which nodes they find is looked at in the most promising groups only."""
    ask, market = case.ask, case.pairs.market
    if ask.workers == 1:
        return None
    worker = np.maximum(1, case.units // ask.workers)
    hourly = price * market.unit * worker
    holds = np.minimum(np.minimum(case.room, case.quota // market.unit) // worker, ask.workers - 1)
    holds = np.minimum(holds, _affordable(left, hourly, ask.duration_s))
    # What leases hold may be more than there is: then nothing is left, and not less than that.
    holds = np.where(case.only(*AMOUNT), np.maximum(holds, 0), 0)
    found: tuple[int, int] | None = None
    for at in np.lexsort((price, -holds))[:MOST_PARTS].tolist():
        count = int(holds[at])
        if ask.same_node:
            count = min(count, case.ledger.nodes[at].places(int(worker[at]), case.span))
        if count and (found is None or count > found[0]):
            found = count, at
    if found is None:
        return None
    count, at = found
    return _checked(case, at, Field.WORKERS, count, replace(ask, workers=count))


def _wishes(case: _Case) -> Iterator[Change | None]:
    ask = case.ask
    at = _least(case.cost, case.freed(Why.CONFIDENTIAL))
    if at is not None:
        yield _checked(case, at, Field.CONFIDENTIAL, False, replace(ask, confidential=Confidential.NONE))
    at = _least(case.cost, case.freed(Why.INTERRUPTIBLE))
    if at is not None:
        yield _checked(case, at, Field.UNINTERRUPTED, False, replace(ask, uninterrupted=False))
    if ask.same_node:
        free = (case.units <= case.ledger.room(case.span)) & (case.cost <= case.money) & (case.devices <= case.quota)
        at = _least(case.cost, free & case.only(Why.NODE))
        if at is not None:
            yield _checked(case, at, Field.SAME_NODE, False, replace(ask, same_node=False))


def _allowances(case: _Case) -> Iterator[Change | None]:
    """A single budget or quota that is short; where two are, no single change helps."""
    ask, ledger = case.ask, case.ledger
    at = _least(case.cost, case.only(Why.BUDGET) & (case.units <= case.room) & (case.devices <= case.quota))
    if at is not None and case.cost[at] <= MAX_MONEY:
        short = {name: int(case.cost[at]) - ledger.budget(name) for name in set(ask.budgets)}
        short = {name: by for name, by in short.items() if by > 0}
        if len(short) == 1:
            (name, by), rest = short.popitem(), replace(ask, budgets=())
            yield _checked(case, at, Field.BUDGET, by, rest, name=name)
    at = _least(case.devices, case.only(Why.QUOTA) & (case.units <= case.room) & (case.cost <= case.money))
    if at is not None:
        short = {name: int(case.devices[at]) - ledger.quota(name) for name in set(ask.quotas)}
        short = {name: by for name, by in short.items() if by > 0}
        if len(short) == 1:
            (name, by), rest = short.popitem(), replace(ask, quotas=())
            yield _checked(case, at, Field.QUOTA, by, rest, name=name)


def _later(case: _Case) -> Iterator[Change | None]:
    """The first start after its window at which some group has room; then a deadline that would do."""
    ask, market = case.ask, case.pairs.market
    if market.buckets == 1:
        return
    for bucket, start in enumerate(market.starts.tolist()):
        if start <= ask.latest_s:
            continue
        span = bucket, market.span(start, start + ask.duration_s)[1]
        late = replace(ask, start_by_s=start)
        if ask.end_by_s is not None and start + ask.duration_s > ask.end_by_s:
            late = replace(late, end_by_s=start + ask.duration_s)
        room = case.ledger.room(span)
        for at in np.flatnonzero(case.only(Why.WINDOW, Why.COUNT, Why.SHARED, Why.NODE) & (case.units <= room)):
            free = replace(case, bucket=bucket, span=span, room=room)
            field, to = (
                (Field.START_BY, start) if late.end_by_s == ask.end_by_s else (Field.END_BY, start + ask.duration_s)
            )
            if field is Field.END_BY and ask.start_by_s is not None and start > ask.start_by_s:
                continue
            found = _checked(free, int(at), field, to, late)
            if found is not None:
                yield found
                return


def _split(case: _Case) -> Iterator[Change | None]:
    """Over so many groups it would fit, the cheapest that hold most of it."""
    ask, market = case.ask, case.pairs.market
    if ask.workers == 1 or ask.split >= ask.workers:
        return
    worker = case.units // ask.workers
    holds = np.where(case.only(Why.COUNT, Why.SHARED, Why.NODE), case.room // np.maximum(1, worker), 0)
    order = np.lexsort((case.cost, -np.minimum(holds, ask.workers)))[: MOST_PARTS + ask.split]
    left, cost, devices, named = ask.workers, 0, 0, []
    for at in order.tolist():
        count = min(left, int(holds[at]))
        if count:
            group = case.pairs.groups[at]
            named.append(group)
            cost += cost_of(ask, group, start_s=case.start_s, workers=count)
            devices += int(case.devices[at]) // ask.workers * count
            left -= count
        if not left:
            break
    wider = replace(ask, split=max(1, len(named)))
    total = MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros
    if left or len(named) <= ask.split or market.problem.rows:
        return
    barred = (reason for group in named for reason in unsuitable(wider, group, start_s=case.start_s))
    if cost <= min(case.money, total) and devices <= case.quota and not any(barred):
        yield Change(field=Field.SPLIT, to=len(named), group=named[0].id, cost_micros=cost)


def _checked(
    case: _Case, at: int, field: Field, to: int | str | bool, changed: Ask, *, name: str = ""
) -> Change | None:
    group, ledger, market = case.pairs.groups[at], case.ledger, case.pairs.market
    worker = -(-changed.devices // group.unit)
    units = worker * changed.workers
    span = case.bucket, market.span(case.start_s, case.start_s + changed.duration_s)[1]
    if form_of(changed, group.id) != 0 or units > int(ledger.room(span)[at]):
        return None
    if changed.same_node and ledger.nodes[at].places(worker, span) < changed.workers:
        return None
    if any(unsuitable(changed, group, start_s=case.start_s)):
        return None
    cost, end_s = cost_of(changed, group, start_s=case.start_s), case.start_s + changed.duration_s
    if any(cost > ledger.budget(budget.id) for budget in _paying(case, changed)):
        return None
    if any(units * group.unit > ledger.quota(quota.id) for quota in _counting(case, changed, group.id, end_s)):
        return None
    return Change(field=field, to=to, id=name, group=group.id, cost_micros=cost)


def _paying(case: _Case, ask: Ask) -> Iterator[Budget]:
    for budget in case.pairs.market.budgets_of(ask):
        if budget.from_s <= case.start_s and (budget.until_s is None or case.start_s < budget.until_s):
            yield budget


def _counting(case: _Case, ask: Ask, group: str, end_s: int) -> Iterator[Quota]:
    for quota in case.pairs.market.quotas_of(ask):
        inside = end_s > quota.from_s and (quota.until_s is None or case.start_s < quota.until_s)
        if inside and (quota.groups is None or group in quota.groups):
            yield quota


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
