"""Consumable capacity (KEP-5075): what a request takes of a device, and whether it still fits.

Per capacity of the device: a request that names it takes what it names, rounded up as the policy says; one that does
not takes the policy's default, or all of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.dra.model import Capacity, RequestPolicy, ValidRange
from broker.dra.quantity import ZERO, Quantity

Amounts = Mapping[str, Quantity]


def fits(wanted: Amounts | None, capacities: Mapping[str, Capacity], taken: Amounts, taking: Amounts) -> bool:
    """Whether a request fits beside what is taken already and what this allocation is about to take."""
    if wanted and not wanted.keys() <= capacities.keys():
        return False
    for name, capacity in capacities.items():
        amount = _takes(wanted.get(name) if wanted else None, capacity)
        if _violates(amount, capacity.policy):
            return False
        if amount + taken.get(name, ZERO) + taking.get(name, ZERO) > capacity.value:
            return False
    return True


def consumed(wanted: Amounts | None, capacities: Mapping[str, Capacity]) -> dict[str, Quantity]:
    """What the request takes, by capacity."""
    return {name: _takes(wanted.get(name) if wanted else None, capacity) for name, capacity in capacities.items()}


def _takes(wanted: Quantity | None, capacity: Capacity) -> Quantity:
    policy = capacity.policy
    if wanted is None:
        return policy.default if policy is not None and policy.default is not None else capacity.value
    if policy is None:
        return wanted
    if policy.valid_range is not None and policy.valid_range.minimum is not None:
        return _round_up(wanted, policy.valid_range.minimum, policy.valid_range.step)
    return next((value for value in policy.values if wanted <= value), wanted)


def _round_up(wanted: Quantity, minimum: Quantity, step: Quantity | None) -> Quantity:
    if wanted < minimum:
        return minimum
    if step is None:
        return wanted
    steps = -(-(wanted.nanos - minimum.nanos) // step.nanos)
    return Quantity(minimum.nanos + steps * step.nanos)


def _violates(amount: Quantity, policy: RequestPolicy | None) -> bool:
    if policy is None or amount == policy.default:
        return False
    if policy.valid_range is not None:
        return _outside(amount, policy.valid_range)
    return bool(policy.values) and amount not in policy.values


def _outside(amount: Quantity, limits: ValidRange) -> bool:
    if limits.maximum is not None and amount > limits.maximum:
        return True
    start = limits.minimum or ZERO
    return limits.step is not None and (amount.nanos - start.nanos) % limits.step.nanos != 0
