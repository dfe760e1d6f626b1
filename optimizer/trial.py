"""A proposed change, made and put to the test: would the request then be placed, beside the whole plan?

Nothing here comes from the tables that led to the proposal. The changed request is held against the group by the
independent checker's predicates (``suits``), and against what the others leave by the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optimizer.ledger import Ledger
from optimizer.pairs import Pairs
from optimizer.problem import MAX_MONEY, Ask, Group
from optimizer.purses import Purses
from optimizer.solution import Change, Field
from optimizer.suits import cost_of, form_of, unsuitable


@dataclass(frozen=True)
class Trial:
    """A plan beside which changes are tried."""

    pairs: Pairs
    ledger: Ledger
    purses: Purses

    def passed(
        self, changed: Ask, at: int, bucket: int, field: Field, to: int | str | bool, *, name: str = ""
    ) -> Change | None:
        """The change that made this request of another, if all of it can now start there then; None if it cannot.

        A larger budget or quota, ``name``, changes no request; the request is then one as it is.
        """
        group, market = self.pairs.groups[at], self.pairs.market
        start_s = int(market.starts[bucket])
        end_s = start_s + changed.duration_s
        worker = -(-changed.devices // group.unit)
        units = worker * changed.workers
        span = bucket, market.span(start_s, end_s)[1]
        if form_of(changed, group.id) != 0 or units > int(self.ledger.room(span)[at]):
            return None
        if changed.same_node and self.ledger.nodes[at].places(worker, span) < changed.workers:
            return None
        if any(unsuitable(changed, group, start_s=start_s)):
            return None
        cost = cost_of(changed, group, start_s=start_s)
        limit = name if field in (Field.BUDGET, Field.QUOTA) else ""
        if self._overdrawn(changed, start_s, cost, [(group, units)]) - {(field, limit)}:
            return None
        return Change(field=field, to=to, id=name, group=group.id, cost_micros=cost)

    def spread(self, changed: Ask, bucket: int, shares: Iterable[tuple[int, int]]) -> Change | None:
        """As ``passed``, of a request that is split: so many workers in each group; their room is the caller's word."""
        start_s = int(self.pairs.market.starts[bucket])
        named = [(self.pairs.groups[at], workers) for at, workers in shares]
        if any(reason for group, _ in named for reason in unsuitable(changed, group, start_s=start_s)):
            return None
        cost = sum(cost_of(changed, group, start_s=start_s, workers=workers) for group, workers in named)
        total = MAX_MONEY if changed.total_cap_micros is None else changed.total_cap_micros
        taken = [(group, -(-changed.devices // group.unit) * workers) for group, workers in named]
        if cost > total or self._overdrawn(changed, start_s, cost, taken):
            return None
        return Change(field=Field.SPLIT, to=len(named), group=named[0][0].id, cost_micros=cost)

    def _overdrawn(self, ask: Ask, start_s: int, cost: int, taken: list[tuple[Group, int]]) -> set[tuple[Field, str]]:
        """Its budgets that do not hold this cost, and its quotas that do not allow so many units of these groups.

        A quota counts what lies in its own groups.
        """
        short = {(Field.BUDGET, name) for name, left in self.purses.budgets(ask, start_s) if cost > left}
        for quota, left in self.purses.quotas(ask, start_s):
            inside = [each for each in taken if quota.groups is None or each[0].id in quota.groups]
            if sum(group.unit * units for group, units in inside) > left:
                short.add((Field.QUOTA, quota.id))
        return short
