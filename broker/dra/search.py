"""The search for devices: claim by claim, request by request, device by device, stepping back where it fails.

It follows kube-scheduler's structured allocator (KEP-4381) in what it tries and in which order, so that both give the
same answer: the first solution found, in the order of pools, slices and devices. Within one request, devices are only
taken in that order, since a set does not change with its order. Trees that would take too long end in ``GaveUp``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from broker.dra import capacity, taints
from broker.dra.cel import BadSelector, SelectorError, compile_selector
from broker.dra.constraints import Check, concerns
from broker.dra.counters import Ledger
from broker.dra.model import (
    MAX_DEVICES_PER_CLAIM,
    Allocated,
    Ask,
    Claim,
    DeviceClass,
    DeviceId,
    Features,
    Request,
)
from broker.dra.pools import Candidate
from broker.dra.quantity import ZERO, Quantity

MAX_STEPS = 200_000


class SearchError(RuntimeError):
    """Something that ends the whole allocation, as it does in Kubernetes: the message says what."""


class GaveUp(SearchError):
    """The search took more steps than allowed."""


class _Found(Enum):
    YES = "yes"
    NO = "no"
    TOO_MANY = "too many devices for one claim"  # of what follows, nothing fits: other devices here cannot help


@dataclass(frozen=True, eq=False)
class Plan:
    """One ask made ready: its class, how many devices, and for "All" which."""

    request: Request
    ask: Ask
    device_class: DeviceClass
    count: int
    everything: tuple[Candidate, ...] | None = None

    @property
    def full_name(self) -> str:
        return self.request.full_name(self.ask)

    @property
    def admin(self) -> bool:
        return bool(self.ask.admin)


@dataclass(frozen=True, eq=False)
class Pick:
    """A device taken for an ask."""

    plan: Plan
    candidate: Candidate
    consumed: Mapping[str, Quantity] | None  # None unless the device is shared


Undo = Callable[[], None]


@dataclass(eq=False)
class Search:
    """One allocation being tried. ``candidates`` are the devices of all ready pools on the node, in order."""

    claims: Sequence[Claim]
    plans: Sequence[Sequence[Sequence[Plan]]]  # by claim, by request, by alternative
    checks: Sequence[Sequence[Check]]  # by claim, beside its constraints
    candidates: Sequence[Candidate]
    allocated: Allocated
    features: Features
    matched: dict[tuple[DeviceId, int], bool]
    picks: list[list[Pick]] = field(init=False)
    chosen: dict[tuple[int, int], Plan] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.picks = [[] for _ in self.claims]
        self._ledger = Ledger(self.allocated)
        self._taking: dict[DeviceId, set[int]] = {}
        self._sharing: dict[DeviceId, list[Mapping[str, Quantity]]] = {}

    def run(self) -> bool:
        """Whether all claims can be satisfied at once; then ``picks`` and ``chosen`` say how."""
        return self._request(0, 0) is _Found.YES

    def _request(self, claim: int, request: int) -> _Found:
        if claim == len(self.claims):
            return _Found.YES
        if request == len(self.plans[claim]):
            found = self._request(claim + 1, 0)
            return _Found.NO if found is _Found.TOO_MANY else found
        every_one_too_many = True
        for plan in self.plans[claim][request]:
            found = self._devices(claim, request, plan, taken=0, start=0)
            if found is _Found.YES:
                self.chosen[claim, request] = plan
                return found
            every_one_too_many = every_one_too_many and found is _Found.TOO_MANY
        return _Found.TOO_MANY if every_one_too_many else _Found.NO

    def _devices(self, claim: int, request: int, plan: Plan, *, taken: int, start: int) -> _Found:
        if plan.everything is not None and not plan.everything:
            return _Found.NO
        if taken == plan.count:
            return self._request(claim, request + 1)
        if len(self.picks[claim]) + plan.count - taken > MAX_DEVICES_PER_CLAIM:
            return _Found.TOO_MANY
        must = plan.everything is not None
        for index, candidate in self._next(claim, plan, taken, start):
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise GaveUp(f"gave up after {MAX_STEPS} steps")
            undo = self._take(claim, plan, candidate, must=must)
            if undo is None:
                continue
            found = self._devices(claim, request, plan, taken=taken + 1, start=index + 1)
            if found is _Found.YES:
                return found
            undo()
            if found is _Found.TOO_MANY:
                return found
        return _Found.NO

    def _next(self, claim: int, plan: Plan, taken: int, start: int) -> Iterator[tuple[int, Candidate]]:
        if plan.everything is not None:
            yield taken, plan.everything[taken]
            return
        for index in range(start, len(self.candidates)):
            candidate = self.candidates[index]
            if not self._busy(claim, plan, candidate.device.id) and self.wanted(plan, candidate):
                yield index, candidate

    def _busy(self, claim: int, plan: Plan, device: DeviceId) -> bool:
        if plan.admin:
            return claim in self._taking.get(device, ())
        return device in self.allocated.dedicated or bool(self._taking.get(device))

    def wanted(self, plan: Plan, candidate: Candidate) -> bool:
        """Whether class and selectors want the device, on this node; raises SearchError as evaluation does."""
        device = candidate.device
        if device.binding_conditions and not self.features.binding_conditions:
            return False
        key = (device.id, id(plan.ask))
        known = self.matched.get(key)
        if known is None:
            known = self.matched[key] = self._selected(plan, candidate) and candidate.on_node
        return known

    def _selected(self, plan: Plan, candidate: Candidate) -> bool:
        sources = (
            (f"class {plan.device_class.name}", plan.device_class.selectors),
            (f"request {plan.full_name}", plan.ask.selectors),
        )
        for owner, selectors in sources:
            for number, expression in enumerate(selectors):
                where = f"{owner}, selector #{number}"
                if expression is None:
                    raise SearchError(f"{where}: not a CEL selector (of a kind that is not known here)")
                try:
                    selector = compile_selector(expression, lists=self.features.list_attributes)
                    if not selector.matches(candidate.device.view):
                        return False
                except BadSelector as error:
                    raise SearchError(f"{where}: does not compile: {error}") from None
                except SelectorError as error:
                    raise SearchError(f"{where}, device {candidate.device.id}: {error}") from None
        return True

    def fits(self, plan: Plan, candidate: Candidate) -> bool:
        """Whether the device has the capacity asked for left."""
        if not self.features.consumable_capacity:
            return True
        device = candidate.device
        taking: dict[str, Quantity] = {}
        for share in self._sharing.get(device.id, ()):
            for name, amount in share.items():
                taking[name] = taking.get(name, ZERO) + amount
        taken = self.allocated.consumed.get(device.id, {})
        return capacity.fits(plan.ask.capacity, device.capacity, taken, taking)

    def _take(self, claim: int, plan: Plan, candidate: Candidate, *, must: bool) -> Undo | None:
        """Take a device for the claim, or say (None) that it cannot be had; the result gives it back."""
        device, pool = candidate.device, candidate.pool
        shared = device.shareable and self.features.consumable_capacity
        if plan.admin and not shared and claim in self._taking.get(device.id, ()):
            return None
        if not plan.admin and self._busy(claim, plan, device.id):
            return None
        if device.consumes and not self.features.partitionable_devices:
            return None
        if self.features.device_taints and taints.untolerated(device.taints, plan.ask.tolerations):
            return None
        already_shared = shared and (device.id in self.allocated.consumed or bool(self._sharing.get(device.id)))
        counted = bool(device.consumes) and not already_shared
        if counted and not self._ledger.take(device, pool):
            return None
        checks: list[Check] = []

        def give_back() -> None:
            for check in reversed(checks):
                check.remove()
            if counted:
                self._ledger.give_back(device, pool)

        for check in self._checks(claim, plan):
            if not check.add(device):
                give_back()
                if must:
                    raise SearchError(f"request {plan.full_name}: a constraint forbids {device.id}, and all are wanted")
                return None
            checks.append(check)
        if not self.fits(plan, candidate):
            give_back()
            return None
        amounts = capacity.consumed(plan.ask.capacity, device.capacity) if shared else None
        if amounts is None:
            self._taking.setdefault(device.id, set()).add(claim)
        else:
            self._sharing.setdefault(device.id, []).append(amounts)
        self.picks[claim].append(Pick(plan, candidate, amounts))

        def undo() -> None:
            self.picks[claim].pop()
            if amounts is None:
                self._taking[device.id].discard(claim)
            else:
                self._sharing[device.id].pop()
            give_back()

        return undo

    def _checks(self, claim: int, plan: Plan) -> list[Check]:
        return [
            check
            for constraint, check in zip(self.claims[claim].constraints, self.checks[claim], strict=True)
            if concerns(constraint, plan.request, plan.full_name)
        ]
