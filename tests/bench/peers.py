"""How others place, re-implemented on the same pairs and limits: what each decides by, and nothing it is not known for.

All of them are generous readings: each is given the capacity, the budgets and the quotas of this problem, which the
real one often does not look at, and takes no request for less than it costs. They are not the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from optimizer.cpsat import Effort, Model
from optimizer.goals import goals
from optimizer.greedy import Plan, plans
from optimizer.ledger import Ledger
from optimizer.pairs import Pairs

Peer = Callable[[Pairs], Plan]


def _arrival(pairs: Pairs) -> list[int]:
    return sorted(range(len(pairs.asks)), key=lambda at: pairs.asks[at].created)


def _fill(pairs: Pairs, order: Iterable[int], score: Callable[[Ledger, range], np.ndarray]) -> Plan:  # type: ignore[type-arg]  # any numbers
    ledger = Ledger(pairs)
    plan: dict[int, int | None] = {}
    for ask in order:
        own = pairs.of(ask)
        if len(own):
            fit = ledger.fits(ask, slice(own.start, own.stop))
            best = own.start + int(np.where(fit, score(ledger, own), -np.inf).argmax())
            if fit[best - own.start]:
                plan[best] = ledger.take(best)
    return plan


def cheapest(pairs: Pairs) -> Plan:
    """In order of arrival, each to its cheapest offer: SkyPilot's choice, with capacity given to it."""
    return _fill(pairs, _arrival(pairs), lambda _, own: -pairs.cost[own.start : own.stop])


def best_fit(pairs: Pairs) -> Plan:
    """In order of arrival, to the fullest offer that holds it: kube-scheduler's MostAllocated, among offers."""
    return _fill(
        pairs,
        _arrival(pairs),
        lambda ledger, own: -ledger.room[pairs.group[own.start : own.stop]].astype(float),
    )


def worst_fit(pairs: Pairs) -> Plan:
    """In order of arrival, to the emptiest offer: kube-scheduler's LeastAllocated, among offers."""
    return _fill(
        pairs, _arrival(pairs), lambda ledger, own: ledger.room[pairs.group[own.start : own.stop]].astype(float)
    )


def dot_product(pairs: Pairs) -> Plan:
    """In order of arrival, where demand and what is left point the same way; in one dimension, by size × room."""
    return _fill(
        pairs,
        _arrival(pairs),
        lambda ledger, own: (pairs.units[own.start : own.stop] * ledger.room[pairs.group[own.start : own.stop]]) * 1.0,
    )


def fair_queues(pairs: Pairs) -> Plan:
    """The tenant with the smallest share next, its requests by priority and arrival, packed tightly: KAI, Volcano."""
    ledger = Ledger(pairs)
    plan: dict[int, int | None] = {}
    queues: dict[str, list[int]] = {}
    for ask in sorted(range(len(pairs.asks)), key=lambda at: (-pairs.asks[at].priority, pairs.asks[at].created)):
        queues.setdefault(pairs.asks[ask].tenant, []).append(ask)
    held = dict.fromkeys(queues, 0)
    while queues:
        tenant = min(queues, key=lambda name: (held[name], name))
        ask = queues[tenant].pop(0)
        own = pairs.of(ask)
        if not queues[tenant]:
            del queues[tenant]
        if len(own):
            fit = ledger.fits(ask, slice(own.start, own.stop))
            room = -ledger.room[pairs.group[own.start : own.stop]].astype(float)
            best = own.start + int(np.where(fit, room, -np.inf).argmax())
            if fit[best - own.start]:
                plan[best] = ledger.take(best)
                held[tenant] += int(pairs.devices[best])
    return plan


def density(name: str) -> Peer:
    """One of the greedy orders that ours starts from, alone."""
    return lambda pairs: next(plan for each, plan in plans(pairs) if each == name)


def direct(seconds: float) -> Peer:
    """The whole problem to CP-SAT, cold: DCM, Priority Matters."""

    def solved(pairs: Pairs) -> Plan:
        model = Model(pairs, np.arange(len(pairs)))
        effort = Effort(seconds=seconds, deterministic=None, seed=0, workers=1)
        found = model.solve(goals(pairs)[0].coefficient, (), effort)
        return dict.fromkeys(sorted(found.chosen or ()))

    return solved


PEERS: Mapping[str, Peer] = {
    "cheapest first": cheapest,
    "best fit": best_fit,
    "worst fit": worst_fit,
    "dot product": dot_product,
    "fair queues, packed": fair_queues,
    "value by root of devices": density("profit by root of devices"),
    "value by device": density("profit by device"),
}
