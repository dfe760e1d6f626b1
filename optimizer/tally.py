"""What the placements of a plan take together, and whether that is there.

Everything is counted for each *bucket*, the time from one start to the next: what is placed counts as there during all
of every bucket that it touches. A limit that is smaller than what must stay (running leases that must not be ended)
counts as that much: a limit lowered under them stops others and breaks no promise.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property

from optimizer.problem import MAX_DURATION, Ask, Budget, Group, Problem, Quota
from optimizer.solution import Part, Placement
from optimizer.suits import form_at, hourly_of, tier_of, units_of, up

END = 2 * MAX_DURATION
"""Later than anything ends."""


class Use:
    """What some placements take; all keys without a count are 0."""

    def __init__(self) -> None:
        self.units: Counter[tuple[str, int]] = Counter()
        """(group, bucket) → units."""
        self.nodes: Counter[tuple[str, int, int]] = Counter()
        """(group, node, bucket) → units."""
        self.money: Counter[str] = Counter()
        """Budget → µUSD."""
        self.devices: Counter[str] = Counter()
        """Quota → devices."""


class Limits:
    """The limits of a problem, as its running leases leave them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.aim = problem.aim
        self.starts = problem.starts
        self.groups = {group.id: group for group in problem.groups}
        self._budgets = {budget.id: budget for budget in problem.budgets}
        self._quotas = {quota.id: quota for quota in problem.quotas}

    def money(self, budget: Budget) -> int:
        """µUSD that the plan may spend of it."""
        return max(budget.remaining_micros, self._staying.money[budget.id])

    def devices(self, quota: Quota) -> int:
        """Devices that the plan may take of it."""
        return max(quota.remaining_devices, self._staying.devices[quota.id])

    def budgets_of(self, ask: Ask, start_s: int) -> Iterator[Budget]:
        """The budgets that pay for this ask if it starts then."""
        for name in dict.fromkeys(ask.budgets):
            budget = self._budgets[name]
            if budget.from_s <= start_s and (budget.until_s is None or start_s < budget.until_s):
                yield budget

    def quotas_of(self, ask: Ask, start_s: int, until_s: int) -> Iterator[Quota]:
        """The quotas that count this ask if it runs from then to then."""
        for name in dict.fromkeys(ask.quotas):
            quota = self._quotas[name]
            if quota.from_s < until_s and (quota.until_s is None or start_s < quota.until_s):
                yield quota

    def known(self, ask: Ask, group: Group) -> bool:
        """Whether it is known, and matters, on which nodes of this group the running ask is."""
        held = [each for each in (ask.running.held if ask.running else ()) if each.group == group.id]
        named = all(len(each.nodes) == each.workers for each in held)
        return named and bool(group.per_node) and (ask.same_node or len(self.starts) == 1)

    def kept(self, ask: Ask) -> Placement:
        """The running ask as it is now, going on: its own form, no transfer, nothing lost."""
        if ask.running is None:
            raise ValueError(f"Request {ask.id!r} does not run yet, and cannot go on.")
        form = form_at(ask, 0)
        workers: Counter[str] = Counter()
        for held in ask.running.held:
            workers[held.group] += held.workers
        parts = []
        for name, count in workers.items():
            group, each = self.groups[name], units_of(form, self.groups[name])
            parts.append(
                Part(
                    group=name,
                    workers=count,
                    units=each * count,
                    devices=each * count * group.unit,
                    cost_micros=up(hourly_of(form, group, workers=count) * ask.duration_s, 3600),
                    nodes=self._nodes(ask, group, each),
                )
            )
        hourly = sum(hourly_of(form, self.groups[name], workers=count) for name, count in workers.items())
        return Placement(
            parts=tuple(parts),
            price_micros=up(hourly, form.devices * form.workers),
            duration_s=ask.duration_s,
            tier=max(tier_of(ask, self.groups[name]) or 0 for name in workers),
        )

    def _nodes(self, ask: Ask, group: Group, each: int) -> tuple[tuple[int, int], ...]:
        """Where a running ask is, with so many units for each worker; empty where that is not known."""
        if ask.running is None or not self.known(ask, group):
            return ()
        nodes = Counter(node for held in ask.running.held if held.group == group.id for node in held.nodes)
        return tuple((node, each * workers) for node, workers in sorted(nodes.items()))

    def overdrawn(self, placements: Mapping[str, Placement]) -> Iterator[str]:
        """A sentence for each limit that these placements pass together."""
        use = self._count(placements)
        for (name, bucket), units in use.units.items():
            free = max(self.groups[name].free_within(*self._span(bucket)), self._staying.units[name, bucket])
            if units > free:
                yield f"Group {name!r} has {free} units{self._when(bucket)}; the plan takes {units}."
        for (name, node, bucket), units in use.nodes.items():
            if not 0 <= node < len(self.groups[name].per_node):
                continue
            free = self.groups[name].node_within(node, *self._span(bucket))
            free = max(free, self._staying.nodes[name, node, bucket])
            if units > free:
                yield f"Node {node} of group {name!r} has {free} units{self._when(bucket)}; {units} are taken."
        for row in self.problem.rows:
            for bucket in range(len(self.starts)):
                used = sum(weight * use.units[name, bucket] for name, weight in row.members.items())
                if used <= row.limit:
                    continue
                staying = sum(weight * self._staying.units[name, bucket] for name, weight in row.members.items())
                if used > staying:
                    most = max(row.limit, staying)
                    yield f"Shared capacity {row.id!r} allows {most}{self._when(bucket)}; the plan takes {used}."
        for budget in self.problem.budgets:
            if use.money[budget.id] > (most := self.money(budget)):
                yield f"Budget {budget.id!r} has {most} µUSD; the plan needs {use.money[budget.id]}."
        for quota in self.problem.quotas:
            if use.devices[quota.id] > (most := self.devices(quota)):
                yield f"Quota {quota.id!r} has {most} devices; the plan takes {use.devices[quota.id]}."

    def buckets(self, placement: Placement) -> range:
        """The buckets that a placement touches."""
        first = max(0, bisect_right(self.starts, placement.start_s) - 1)
        return range(first, bisect_left(self.starts, placement.start_s + placement.duration_s))

    @cached_property
    def _staying(self) -> Use:
        return self._count(
            {
                ask.id: self.kept(ask)
                for ask in self.problem.asks
                if ask.running is not None and ask.running.end_micros is None
            }
        )

    def _count(self, placements: Mapping[str, Placement]) -> Use:
        use = Use()
        asks = {ask.id: ask for ask in self.problem.asks}
        for name, placement in placements.items():
            ask = asks[name]
            buckets = self.buckets(placement)
            for part in placement.parts:
                for bucket in buckets:
                    use.units[part.group, bucket] += part.units
                    for node, held in part.nodes:
                        use.nodes[part.group, node, bucket] += held
            if ask.budgets:
                for budget in self.budgets_of(ask, placement.start_s):
                    use.money[budget.id] += placement.cost_micros
            if ask.quotas:
                until = placement.start_s + placement.duration_s
                for quota in self.quotas_of(ask, placement.start_s, until):
                    use.devices[quota.id] += sum(
                        part.devices for part in placement.parts if quota.groups is None or part.group in quota.groups
                    )
        return use

    def _span(self, bucket: int) -> tuple[int, int]:
        last = bucket + 1 == len(self.starts)
        return self.starts[bucket], END if last else self.starts[bucket + 1]

    def _when(self, bucket: int) -> str:
        return f" from {self.starts[bucket]} s on" if len(self.starts) > 1 else ""
