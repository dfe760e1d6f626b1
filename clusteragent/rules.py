"""Which rule of which LendingPolicy decides about a device, and whether a lease keeps to it; pure.

The first rule that matches decides: policies by name, rules in their order. The owner has the last word on his devices,
whatever the broker says, so what was offered is looked at again before anything is held.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.dra import quantity
from broker.dra.cel import BadSelector, SelectorError, compile_selector
from broker.dra.inventory import DeviceState
from broker.dra.model import DeviceId, DeviceView
from broker.dra.normalise import read_attributes
from broker.wire.leases import LeaseBody, LeasedDevice
from broker.wire.lending import LendingPolicySpec, LendingRule


@dataclass
class Selectors:
    """Whether a rule's selector is true for a device, remembered while the device stays as it is published."""

    _known: dict[tuple[str, DeviceId], tuple[object, bool]] = field(default_factory=dict)

    def matches(self, expression: str, device: DeviceState) -> bool:
        """A selector that can't be evaluated on a device doesn't match it."""
        key = (expression, device.id)
        known = self._known.get(key)
        if known is not None and known[0] is device.attributes:
            return known[1]
        answer = _evaluate(expression, device)
        self._known[key] = (device.attributes, answer)
        return answer


def rule_for(
    device: DeviceState, policies: Mapping[str, LendingPolicySpec], selectors: Selectors
) -> tuple[str, LendingPolicySpec, LendingRule] | None:
    """The first rule that matches, by name of the policy and order in it."""
    for name in sorted(policies):
        for rule in policies[name].rules:
            if _fits(device, rule, selectors):
                return name, policies[name], rule
    return None


def _fits(device: DeviceState, rule: LendingRule, selectors: Selectors) -> bool:
    if rule.driver is not None and rule.driver != device.driver:
        return False
    if rule.model is not None and rule.model.casefold() not in device.identity.model.casefold():
        return False
    return rule.selector is None or selectors.matches(rule.selector, device)


def _evaluate(expression: str, device: DeviceState) -> bool:
    amounts = {name: quantity.from_json(capacity["value"]) for name, capacity in device.capacity.items()}
    view = DeviceView(device.driver, read_attributes(device.attributes), amounts)
    try:
        return compile_selector(expression).matches(view)
    except (BadSelector, SelectorError):
        return False


def forbidden(
    body: LeaseBody,
    policies: Mapping[str, LendingPolicySpec],
    state: Callable[[LeasedDevice], DeviceState | None],
    selectors: Selectors,
) -> str | None:
    """Why the owner's policies don't allow this lease; None when they do, or when a device isn't known here.

    The owner has the last word on his devices, whatever the broker says: price, duration and tenant are looked at again
    before anything is held.
    """
    for device in body.devices:
        known = state(device)
        found = None if known is None else rule_for(known, policies, selectors)
        if known is None:
            continue
        if found is None or not found[2].lend or found[1].suspended or found[2].price is None:
            return f"{device.name} in {device.pool} is not lent by any LendingPolicy now"
        rule = found[2]
        if body.price.micros < found[2].price.micros:
            return f"the price of {device.name} in {device.pool} has risen since it was offered"
        if not rule.min_duration <= body.duration <= rule.max_duration:
            return f"{device.name} in {device.pool} is not lent for so long, or so short, a time"
        if rule.allowed_borrowers is not None and body.tenant not in rule.allowed_borrowers:
            return f"{device.name} in {device.pool} is not lent to tenant {body.tenant}"
    return None
