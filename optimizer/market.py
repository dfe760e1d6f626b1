"""The lenders' side of a problem as columns, made once and asked about any requests.

What depends on a request only through one of its wishes (its regions, its tenant) is a row of groups, computed once
for each distinct wish and remembered: thousands of requests share a few policies.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from optimizer.groups import least
from optimizer.problem import MAX_DEVICES, MAX_DURATION, Ask, Budget, Group, Problem, Quota, Tier

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]

NO_CAP = int(np.iinfo(np.int64).max)
ENDLESS = 2 * MAX_DURATION
"""Where the last bucket ends: after anything that starts within a problem."""
REMEMBERED = 20_000_000
"""Cells of rows of one sort that are kept."""
_Key = TypeVar("_Key", bound=Hashable)
_Scalar = TypeVar("_Scalar", bound=np.generic)


class Names:
    """A column of names, each distinct one looked at once however many groups share it."""

    def __init__(self, names: Sequence[str]) -> None:
        index: dict[str, int] = {}
        self.code: Ints = column(index.setdefault(name, len(index)) for name in names)
        self.distinct = list(index)

    def among(self, allowed: frozenset[str] | None) -> Bools:
        """Which rows have one of these names; None is all of them."""
        if allowed is None:
            return np.ones(len(self.code), dtype=np.bool_)
        mask: Bools = np.array([name in allowed for name in self.distinct], dtype=np.bool_)[self.code]
        return mask


class Market:
    """Groups as columns, and how much of everything there is in each bucket of time.

    A limit that is smaller than what leases hold which must not be ended counts as that much.
    """

    def __init__(self, problem: Problem) -> None:
        groups = problem.groups
        self.problem = problem
        self.aim = problem.aim
        self.ids = [group.id for group in groups]
        self.index = {name: at for at, name in enumerate(self.ids)}
        self.unit = column(group.unit for group in groups)
        self.shortest = column(group.min_duration_s for group in groups)
        self.longest = column(group.max_duration_s for group in groups)
        self.confidential = np.array([group.confidential for group in groups], dtype=np.bool_)
        self.uninterrupted = column(
            NO_CAP if group.uninterrupted_s is None else group.uninterrupted_s for group in groups
        )
        """Seconds for which a lease is surely left alone; ``NO_CAP`` where it is forever."""
        self.reclaims = column(group.reclaims for group in groups)
        self.clusters, self.regions, self.jurisdictions, self.providers = (
            Names([getattr(group, name) for group in groups])
            for name in ("cluster", "region", "jurisdiction", "provider")
        )
        self.starts = column(problem.starts)
        self.ends = np.append(self.starts[1:], ENDLESS)
        self.price = np.stack([column(group.price_at(start) for group in groups) for start in problem.starts], axis=1)
        """Groups × buckets: µUSD per device-hour of what starts there."""
        self.count = self._profile(
            [(group.count, [(each.at_s, each.units) for each in group.later]) for group in groups]
        )
        """Groups × buckets: units free during all of the bucket."""
        self.first_node = np.concatenate(([0], np.cumsum([len(group.per_node) for group in groups]))).astype(np.int64)
        """Nodes of group i are rows first_node[i]:first_node[i + 1] of ``nodes``."""
        self.nodes = self._node_profile(groups)
        if self.buckets == 1 and len(self.nodes):
            # At one time every device has a node, and nodes that gain and lose at different moments hold less together.
            self.count = np.where(
                np.diff(self.first_node) > 0, np.minimum(self.count[:, 0], self.held_by_nodes()), self.count[:, 0]
            )[:, None]
        self.rows = np.repeat(column(row.limit for row in problem.rows)[:, None], len(self.starts), axis=1)
        """Capacity rows × buckets."""
        self.budgets = {budget.id: budget.remaining_micros for budget in problem.budgets}
        self.quotas = {quota.id: quota.remaining_devices for quota in problem.quotas}
        self._budgets = {budget.id: budget for budget in problem.budgets}
        self._quotas = {quota.id: quota for quota in problem.quotas}
        self.offered = self.count
        """As ``count``, before limits are raised to what leases hold that must not be ended."""
        self._raise_to_what_stays()
        self._known: dict[str, dict[Any, npt.NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def buckets(self) -> int:
        return len(self.starts)

    def span(self, start_s: int, until_s: int) -> tuple[int, int]:
        """The buckets (from, to before) that overlap a span which begins at a start."""
        return (
            int(np.searchsorted(self.starts, start_s, side="right")) - 1,
            int(np.searchsorted(self.starts, until_s, side="left")),
        )

    # --- amounts -----------------------------------------------------------------------------------------------------

    def room(self, span: tuple[int, int]) -> Ints:
        """Units free in each group all through some buckets, shared capacity included, before anything is placed."""
        return self._remember("room", span, lambda: np.minimum(self.free(span), self.shared(span)))

    def free(self, span: tuple[int, int]) -> Ints:
        """As ``room``, without looking at shared capacity."""
        return self._remember("free", span, lambda: self.count[:, span[0] : span[1]].min(axis=1))

    def takeable(self, span: tuple[int, int]) -> Ints:
        """As ``free``, for whoever gets nodes by name, as all do at one time: what a lease holds that must not be ended
        beyond what its group's nodes have, on nodes that nobody named, is on no node for anybody else."""

        def seated() -> Ints:
            return np.minimum(
                self.free(span), np.where(np.diff(self.first_node) > 0, self.held_by_nodes(), MAX_DEVICES)
            )

        if self.buckets > 1 or not len(self.nodes):
            return self.free(span)
        return self._remember("takeable", span, seated)

    def least_offered(self, span: tuple[int, int]) -> Ints:
        """As ``free``, of what is offered."""
        return self._remember("offered", span, lambda: self.offered[:, span[0] : span[1]].min(axis=1))

    def shared(self, span: tuple[int, int]) -> Ints:
        """Units of each group that the capacities it shares would hold if they held nothing else."""

        def smallest() -> Ints:
            most = np.full(len(self), MAX_DEVICES, dtype=np.int64)
            for row, limit in zip(self.problem.rows, self.rows, strict=True):
                room = int(limit[span[0] : span[1]].min())
                for name, weight in row.members.items():
                    if weight:
                        at = self.index[name]
                        most[at] = min(most[at], room // weight)
            return most

        return self._remember("shared", span, smallest)

    def held_by_nodes(self) -> Ints:
        """Units of all nodes of each group, in the first bucket."""
        sums: Ints = np.add.reduceat(np.append(self.nodes[:, 0], 0), self.first_node[:-1])
        return np.where(np.diff(self.first_node) > 0, sums, 0)

    def places(self, units: int, span: tuple[int, int]) -> Ints:
        """How many pieces of so many units each group's nodes hold, each on one node."""

        def count() -> Ints:
            if not len(self.nodes):
                return np.zeros(len(self), dtype=np.int64)
            pieces = np.append(self.nodes[:, span[0] : span[1]].min(axis=1) // units, 0)
            totals: Ints = np.add.reduceat(pieces, self.first_node[:-1])
            return np.where(np.diff(self.first_node) > 0, totals, 0)

        return self._remember("places", (units, span), count)

    def budget(self, name: str) -> Budget:
        """As the problem has it."""
        return self._budgets[name]

    def budgets_of(self, ask: Ask) -> list[Budget]:
        """The budgets it draws on."""
        return [self._budgets[name] for name in sorted(set(ask.budgets))]

    def quotas_of(self, ask: Ask) -> list[Quota]:
        """The quotas it draws on."""
        return [self._quotas[name] for name in sorted(set(ask.quotas))]

    # --- wishes ------------------------------------------------------------------------------------------------------

    def admits(self, tenant: str) -> Bools:
        """Which groups' lenders lend to this tenant."""
        return np.array(
            [
                group.allowed_tenants is None
                or tenant in group.allowed_tenants
                or (group.lender_tenant != "" and group.lender_tenant == tenant)
                for group in self.problem.groups
            ],
            dtype=np.bool_,
        )

    def fees(self, transfer: tuple[tuple[str, int], ...]) -> Ints:
        """What bringing the data costs, by group, from what it costs by region."""
        by_region = dict(transfer)
        fees: Ints = column(by_region.get(region, 0) for region in self.regions.distinct)[self.regions.code]
        return fees

    def named(self, ids: frozenset[str] | None) -> Bools:
        """Which groups have one of these ids; None is all of them."""
        if ids is None:
            return np.ones(len(self), dtype=np.bool_)
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[[self.index[name] for name in ids if name in self.index]] = True
        return mask

    def in_form(self, matched: tuple[frozenset[str] | None, ...]) -> Bools:
        """Which groups a request takes in the last of these forms: those that none of the forms before it names."""
        mask = self.named(matched[-1])
        for earlier in matched[:-1]:
            mask &= ~self.named(earlier)
        return mask

    def ranked(self, tiers: tuple[Tier, ...]) -> tuple[Ints, Ints]:
        """Rank and price cap of the first tier that admits each group; −1 where none does."""
        rank = np.full(len(self), -1 if tiers else 0, dtype=np.int64)
        cap = np.full(len(self), NO_CAP, dtype=np.int64)
        for at, tier in enumerate(tiers):
            admitted = rank < 0
            for names, allowed in (
                (self.clusters, tier.clusters),
                (self.regions, tier.regions),
                (self.jurisdictions, tier.jurisdictions),
                (self.providers, tier.providers),
            ):
                if allowed is not None:
                    admitted &= names.among(allowed)
            if tier.groups is not None:
                admitted &= self.named(tier.groups)
            rank[admitted] = at
            if tier.price_cap_micros is not None:
                cap[admitted] = tier.price_cap_micros
        return rank, cap

    def gather(
        self, what: str, keys: Sequence[_Key], row: Callable[[_Key], npt.NDArray[_Scalar]]
    ) -> npt.NDArray[_Scalar]:
        """One row of groups for each key, computed once for each distinct one."""
        known = self._known.setdefault(what, {})
        seen: dict[_Key, int] = {}
        which = [seen.setdefault(key, len(seen)) for key in keys]
        table = np.stack([known[each] if each in known else row(each) for each in seen])
        if len(known) * len(self) < REMEMBERED:
            known.update(zip(seen, table, strict=True))
        return table[which] if len(seen) > 1 else np.broadcast_to(table[0], (len(keys), *table.shape[1:]))

    # --- making ------------------------------------------------------------------------------------------------------

    def _profile(self, levels: Sequence[tuple[int, list[tuple[int, int]]]]) -> Ints:
        """(level now, changes) → the least level in each bucket."""
        table = np.repeat(column(level for level, _ in levels)[:, None], len(self.starts), axis=1)
        for at, (level, changes) in enumerate(levels):
            if changes:
                spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
                table[at] = [least(level, changes, start, end) for start, end in spans]
        return table

    def _node_profile(self, groups: Sequence[Group]) -> Ints:
        """As ``count``, node by node."""
        if any(group.later for group in groups):
            return self._profile([level for group in groups for level in _of_nodes(group)])
        now = column(chain.from_iterable(group.per_node for group in groups))
        return np.repeat(now[:, None], len(self.starts), axis=1)

    def _raise_to_what_stays(self) -> None:
        """Limits hold at least what leases hold that must not be ended."""
        held = np.zeros_like(self.count)
        on_nodes = np.zeros_like(self.nodes)
        money = dict.fromkeys(self.budgets, 0)
        taken = dict.fromkeys(self.quotas, 0)
        quotas = {quota.id: quota for quota in self.problem.quotas}
        starts_now = {budget.id for budget in self.problem.budgets if budget.from_s == 0}
        any_stays = False
        for ask in self.problem.asks:
            if ask.running is None or ask.running.end_micros is not None:
                continue
            any_stays = True
            low, high = self.span(0, ask.duration_s)
            for part in ask.running.held:
                at = self.index[part.group]
                worker = -(-ask.devices // int(self.unit[at]))
                units = worker * part.workers
                held[at, low:high] += units
                for node in part.nodes:
                    on_nodes[self.first_node[at] + node, low:high] += worker
                cost = -(-int(self.price[at, 0]) * int(self.unit[at]) * units * ask.duration_s // 3600)
                for name in set(ask.budgets) & starts_now:
                    money[name] += cost
                for name in set(ask.quotas):
                    scope = quotas[name].groups
                    if quotas[name].from_s < ask.duration_s and (scope is None or part.group in scope):
                        taken[name] += units * int(self.unit[at])
        if not any_stays:
            return
        self.count = np.maximum(self.count, held)
        self.nodes = np.maximum(self.nodes, on_nodes)
        self.budgets = {name: max(amount, money[name]) for name, amount in self.budgets.items()}
        self.quotas = {name: max(amount, taken[name]) for name, amount in self.quotas.items()}
        for at, row in enumerate(self.problem.rows):
            used = sum(weight * held[self.index[name]] for name, weight in row.members.items())
            self.rows[at] = np.maximum(self.rows[at], used)

    def _remember(self, what: str, key: Any, make: Callable[[], Ints]) -> Ints:
        known = self._known.setdefault(what, {})
        if key not in known:
            known[key] = make()
        return known[key]


def _of_nodes(group: Group) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    changes: dict[int | None, list[tuple[int, int]]] = {}
    for each in group.later:
        changes.setdefault(each.node, []).append((each.at_s, each.units))
    for node, free in enumerate(group.per_node):
        yield free, changes.get(node, [])


def column(values: Iterable[int]) -> Ints:
    """Whole numbers as an array."""
    return np.fromiter(values, dtype=np.int64)
