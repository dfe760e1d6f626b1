"""Who is to be served before value or priority decide, what the past counts, and how fair a plan came out.

**Guarantees.** A tenant t with weight w_t is guaranteed g_t devices. ``filling`` hands the guarantees out by the
progressive filling of Dominant Resource Fairness: always the tenant with the smallest (devices covered so far) / w_t
takes its next request that still fits in g_t. A guarantee counts devices of any kind alike, so there is one resource
and DRF is weighted max-min fairness. Guarantees are separate purses: the *set* of covered requests (``entitled``) does
not depend on who is filled first; the *order* does, and it says whose turn it is where the guarantees together exceed
what there is. A plan first places as many devices of that set as any plan can. From this follows the *sharing
incentive*: where the requests of all guarantees can be placed side by side, each tenant has what it would have alone
on its guaranteed devices, whatever others ask, pay or claim to be worth.

**History.** Beyond guarantees value decides, and past use tempers it: profit counts × 1000 / max(1000, h), with h the
tenant's decayed use in thousandths of its fair share. Who had less than its share earns no bonus: one for thrift would
let a tenant save up and crowd out all others in one round.

**What gangs break.** Of one divisible resource, max-min shares leave nobody envious, and nobody loses when there is
more of it. Gangs cannot be divided: of two equal tenants that both want 8 devices whole, with 8 on offer, one has all
and the other envies it by 8; a guarantee of 6 covers no part of a gang of 8; and one more group of 4 may let a gang of
8 in (4 there, 4 here) that pushes out a request which had the 4 before. So envy is reported and not forbidden, and more
capacity never makes the *plan* worse, but may make one tenant worse off (``docs/optimizer.md`` has the exceptions).

Sources: A. Ghodsi and others, *Dominant Resource Fairness: Fair Allocation of Multiple Resource Types*, NSDI 2011;
D. Parkes, A. Procaccia, N. Shah, *Beyond Dominant Resource Fairness: Extensions, Limitations, and Indivisibilities*,
EC 2012, for what indivisible requests make impossible.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Set

import numpy as np

from optimizer.asks import Ask
from optimizer.envy import Bundles, Claims, Ints, envies
from optimizer.problem import Problem, Share
from optimizer.ranges import OutOfRange
from optimizer.solution import Envy, Fairness, Placement, TenantShare

MAX_HISTORY = 1_000_000
"""A thousand times the fair share; more counts as that much (``Share`` takes no more)."""
MOST_ENVY = 100
"""Pairs of tenants that a report names; a thousand tenants have a million of them."""


def entitled(problem: Problem, eligible: Callable[[Ask], bool]) -> frozenset[str]:
    """Ids of the asks that guarantees cover.

    ``eligible`` says whether an ask has any option at all, staying where it is among them. It is not asked about leases
    that must not be ended, nor about tenants without a guarantee.
    """
    return frozenset(filling(problem, eligible))


def filling(problem: Problem, eligible: Callable[[Ask], bool]) -> tuple[str, ...]:
    """As ``entitled``, in the order of progressive filling.

    A tenant's asks come by priority, turn and id; what its guarantee cannot hold whole is passed over. Running leases
    come before that: those that must not be ended use up the guarantee even where it cannot hold them (what a tenant
    surely has, it need not be given again), those that may be ended are covered, and so kept, as far as it holds them.
    """
    queues: dict[str, list[Ask]] = {share.tenant: [] for share in problem.shares if share.guaranteed}
    for ask in problem.asks:
        if ask.tenant in queues:
            queues[ask.tenant].append(ask)
    purses = [_Purse(share, queues[share.tenant]) for share in problem.shares if share.guaranteed]
    order = [name for purse in sorted(purses, key=lambda each: each.share.tenant) for name in purse.pinned]
    heap = [(purse.level, purse.share.tenant, purse) for purse in purses]
    heapq.heapify(heap)
    while heap:
        _, tenant, purse = heap[0]
        covered = purse.next_covered(eligible)
        if covered is None:
            heapq.heappop(heap)
        else:
            order.append(covered.id)
            heapq.heapreplace(heap, (purse.level, tenant, purse))
    return tuple(order)


class _Purse:
    """One tenant's guarantee as it is used up."""

    def __init__(self, share: Share, asks: Iterable[Ask]) -> None:
        self.share = share
        self.used = 0
        self.pinned: list[str] = []
        """Ids of the covered leases that no plan may end."""
        queue = sorted(asks, key=_rank)
        pinned = sum(_pinned(ask) for ask in queue)
        for ask in queue[:pinned]:
            if self.used + ask.total <= share.guaranteed:
                self.pinned.append(ask.id)
            self.used += ask.total
        self.queue = iter(queue[pinned:])

    @property
    def level(self) -> float:
        """Devices by weight. While there is room both are below 2^20, so that unequal quotients differ as floats."""
        return self.used / self.share.weight

    def next_covered(self, eligible: Callable[[Ask], bool]) -> Ask | None:
        for ask in self.queue:
            if self.used + ask.total <= self.share.guaranteed and eligible(ask):
                self.used += ask.total
                return ask
        return None


def _pinned(ask: Ask) -> bool:
    return ask.running is not None and ask.running.end_micros is None


def _rank(ask: Ask) -> tuple[bool, bool, int, int, str]:
    """What no plan may end, then what runs, then what waits; each by priority, turn and id."""
    return not _pinned(ask), ask.running is None, -ask.priority, ask.created, ask.id


def discounted(profit: Ints, history_milli: Ints | int) -> Ints:
    """⌊profit × 1000 / max(1000, history)⌋, entry by entry; exact for any 64-bit profit, also below zero."""
    history = np.maximum(history_milli, 1000)
    # profit = q × history + r with 0 ≤ r < history: multiplying the parts cannot leave 64 bits, the whole could.
    whole, rest = np.divmod(profit, history)
    less: Ints = whole * 1000 + rest * 1000 // history
    return less


def history(
    uses: Iterable[tuple[str, float, float]],
    *,
    now_s: float,
    half_life_s: float,
    weights: Mapping[str, int],
    grace_hours: float = 0.0,
) -> dict[str, int]:
    """Each tenant's decayed use in thousandths of its weighted fair share of everybody's.

    ``uses`` are (tenant, device-hours, second when it ended), on the clock of ``now_s``; what ends later counts as if
    it ended now, and a long lease as if all of it were used at its end, unless the caller cuts it in pieces. A use of
    age a counts 2^(−a / half-life). With U_t a tenant's sum, U everybody's and W the weights of all tenants,
    h_t = 1000 · U_t / ((U + grace) · w_t / W): exactly its share is 1000, no use at all 0. All tenants named in
    ``weights`` or ``uses`` count; a weight not given is 1.

    Without ``grace_hours``, time alone changes nothing, because everybody's use decays alike: a tenant that was the
    only one to use anything a year ago is as far above its share today. With it, that fades as the sum falls below so
    many device-hours.

    :raises OutOfRange: a half-life or a weight that is not positive, a use or a grace that is negative or not finite.
    """
    if not 0 < half_life_s < math.inf:
        raise OutOfRange(f"The half-life of past use is {half_life_s!r} s; it must be above 0.")
    if not 0 <= grace_hours < math.inf:
        raise OutOfRange(f"The grace of past use is {grace_hours!r} device-hours; it must not be negative.")
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for tenant, hours, ended_s in uses:
        if not 0 <= hours < math.inf:
            raise OutOfRange(f"Tenant {tenant!r} cannot have used {hours!r} device-hours.")
        parts[tenant].append(hours * 2.0 ** (-max(0.0, now_s - ended_s) / half_life_s))
    weight = {tenant: weights.get(tenant, 1) for tenant in sorted({*weights, *parts})}
    for tenant, each in weight.items():
        if each < 1:
            raise OutOfRange(f"The weight of tenant {tenant!r} is {each}; it must be at least 1.")
    # Exactly rounded sums do not depend on the order in which the uses come.
    used = {tenant: math.fsum(parts[tenant]) for tenant in weight}
    everybody = math.fsum(used.values()) + grace_hours
    if everybody == 0:
        return dict.fromkeys(weight, 0)
    total = sum(weight.values())
    return {
        tenant: round(min(MAX_HISTORY, 1000 * (used[tenant] / everybody) * total / weight[tenant])) for tenant in weight
    }


def report(
    problem: Problem,
    placements: Mapping[str, Placement],
    *,
    pairs: tuple[Ints, Ints],
    covered: Set[str],
) -> Fairness:
    """How a plan treats the tenants that ask for something or have a share.

    It says who holds what *now*: placements that start later count for nothing but ``entitled_placed``, and requests
    that may not start yet neither want nor envy. ``pairs`` are the eligible (ask, group) pairs, as indices into the
    problem's asks and groups, those where a running lease may stay included; ``covered`` is what ``entitled`` said.
    ``envy.py`` has the definition of envy.
    """
    shares = {share.tenant: share for share in problem.shares}
    tenants = sorted({*shares, *(ask.tenant for ask in problem.asks)})
    weight = {name: shares[name].weight if name in shares else 1 for name in tenants}
    held: Counter[tuple[str, str]] = Counter()
    entitlement: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for ask in problem.asks:
        placement = placements.get(ask.id)
        if ask.id in covered:
            entitlement[ask.tenant] += ask.total
            kept[ask.tenant] += ask.total if placement is not None else 0
        if placement is not None and placement.start_s == 0:
            for part in placement.parts:
                held[ask.tenant, part.group] += part.devices
    devices: Counter[str] = Counter()
    for (name, _), amount in held.items():
        devices[name] += amount
    dominant = _dominant(problem, held)
    mean = sum(weight.values()) / max(1, len(weight))
    rows = {
        name: TenantShare(
            guaranteed=shares[name].guaranteed if name in shares else 0,
            devices=devices[name],
            entitled=entitlement[name],
            entitled_placed=kept[name],
            dominant=dominant.get(name, 0.0),
            weighted=dominant.get(name, 0.0) * mean / weight[name],
        )
        for name in tenants
    }
    could = _could(problem, pairs[0])
    weighted = [rows[name].weighted for name in {*devices, *(ask.tenant for ask in could)}]
    unmet: Counter[str] = Counter()
    for ask in could:
        if ask.id not in placements or placements[ask.id].start_s > 0:
            unmet[ask.tenant] += ask.total
    return Fairness(
        tenants=rows,
        least=min(weighted, default=0.0),
        most=max(weighted, default=0.0),
        envy=_envy(problem, weight, held, unmet, pairs),
    )


def _dominant(problem: Problem, held: Mapping[tuple[str, str], int]) -> dict[str, float]:
    """Tenant → the largest part it holds of all devices of one kind."""
    kind = {group.id: group.kind for group in problem.groups}
    offered: Counter[str] = Counter()
    for group in problem.groups:
        offered[group.kind] += group.count * group.unit
    by_kind: Counter[tuple[str, str]] = Counter()
    lent: Counter[str] = Counter()
    for (name, group_id), amount in held.items():
        by_kind[name, kind[group_id]] += amount
        lent[kind[group_id]] += amount
    found: dict[str, float] = {}
    for (name, what), amount in by_kind.items():
        # Running leases may hold more than their group still offers.
        found[name] = max(found.get(name, 0.0), amount / max(offered[what], lent[what]))
    return found


def _could(problem: Problem, eligible: Ints) -> list[Ask]:
    """The asks that could hold something now: they may start, or run, and something would do."""
    some = np.zeros(len(problem.asks), dtype=np.bool_)
    some[eligible] = True
    return [
        ask
        for ask, any_pair in zip(problem.asks, some.tolist(), strict=True)
        if _pinned(ask) or (any_pair and (ask.not_before_s == 0 or ask.running is not None))
    ]


def _envy(
    problem: Problem,
    weight: Mapping[str, int],
    held: Mapping[tuple[str, str], int],
    unmet: Mapping[str, int],
    pairs: tuple[Ints, Ints],
) -> tuple[Envy, ...]:
    tenants = list(weight)
    tenant_at = {name: at for at, name in enumerate(tenants)}
    group_at = {group.id: at for at, group in enumerate(problem.groups)}
    holdings = sorted((tenant_at[name], group_at[group], amount) for (name, group), amount in held.items())
    ask, group = pairs
    now = np.array([each.not_before_s == 0 for each in problem.asks], dtype=np.bool_)[ask]
    of_ask = _column(tenant_at[each.tenant] for each in problem.asks)
    found = envies(
        Bundles(*(_column(each[at] for each in holdings) for at in range(3))),
        Claims(
            weight=_column(weight.values()),
            unmet=_column(unmet.get(name, 0) for name in tenants),
            tenant=of_ask[ask[now]],
            group=group[now],
        ),
        groups=len(problem.groups),
        most=MOST_ENVY,
    )
    return tuple(Envy(tenant=tenants[a], of=tenants[b], devices=amount) for a, b, amount in found)


def _column(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
