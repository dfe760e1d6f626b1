"""What a plan leaves of the budgets and quotas that requests draw on, looked up once for all that draw on the same."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.ledger import Ledger
from optimizer.market import Bools, Market
from optimizer.problem import Ask, Budget, Quota

Left = tuple[str, int]
"""(budget, µUSD)"""
Allowed = tuple[Quota, int]
"""(quota, devices)"""


class Purses:
    """Of one plan, as long as nothing is placed or taken back."""

    def __init__(self, market: Market, ledger: Ledger) -> None:
        self._market, self._ledger = market, ledger
        self._windows = any(quota.from_s or quota.until_s is not None for quota in market.problem.quotas)
        self._budgets: dict[tuple[tuple[str, ...], int], Sequence[Left]] = {}
        self._quotas: dict[tuple[tuple[str, ...], int, int], Sequence[Allowed]] = {}

    def budgets(self, ask: Ask, start_s: int) -> Sequence[Left]:
        """Those that pay for it if it starts then."""
        key = ask.budgets, start_s
        if key not in self._budgets:
            mine = paying(self._market, ask, start_s)
            self._budgets[key] = [(each.id, self._ledger.budget(each.id)) for each in mine]
        return self._budgets[key]

    def quotas(self, ask: Ask, start_s: int) -> Sequence[Allowed]:
        """Those that count it if it starts then, in its own form."""
        end_s = start_s + ask.duration_s
        key = ask.quotas, *((start_s, end_s) if self._windows else (0, 0))
        if key not in self._quotas:
            mine = counting(self._market, ask, start_s, end_s)
            self._quotas[key] = [(each, self._ledger.quota(each.id)) for each in mine]
        return self._quotas[key]

    def overdrawn(self, budget: str) -> int:
        """µUSD that leases which must not be ended take beyond what it has: any more for it goes there first."""
        return self._market.budgets[budget] - self._market.budget(budget).remaining_micros

    def exceeded(self, quota: Quota) -> int:
        """As ``overdrawn``, in devices."""
        return self._market.quotas[quota.id] - quota.remaining_devices

    def inside(self, quota: Quota, among: Bools) -> Bools:
        """Which of these groups it counts."""
        return among & self._market.named(quota.groups)


def paying(market: Market, ask: Ask, start_s: int) -> list[Budget]:
    """The budgets that pay for a request which starts then."""
    return [each for each in market.budgets_of(ask) if each.from_s <= start_s and _before_end(each, start_s)]


def counting(market: Market, ask: Ask, start_s: int, end_s: int) -> list[Quota]:
    """The quotas that count a request which runs from then to then."""
    return [each for each in market.quotas_of(ask) if each.from_s < end_s and _before_end(each, start_s)]


def _before_end(limit: Budget | Quota, start_s: int) -> bool:
    return limit.until_s is None or start_s < limit.until_s
