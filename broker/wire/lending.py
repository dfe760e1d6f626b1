"""Lending policies: what a lender gives, what it keeps back, for how much and on which terms.

A LendingPolicy is an object in the lender's cluster and is applied by its agent alone: what is kept back never leaves
the cluster, not even as a number that could be overdrawn.
"""

from typing import Annotated

from pydantic import Field, model_validator

from broker.wire.base import AskedPrice, Cel, Duration, Inbound, Name
from broker.wire.devices import DriverName, Place


class KeepBack(Inbound):
    """How many free devices stay at home, whichever is more; whole lendable units are kept."""

    devices: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Of the devices the rule matches, free or not."""


class LendingRule(Inbound):
    """One kind of devices under one price; the first rule of all policies (by name) that matches a device decides."""

    name: Name
    driver: DriverName | None = None
    model: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Only devices whose model contains this, upper or lower case."""
    selector: Cel | None = None
    """CEL over ``device``, as in a DeviceClass."""
    lend: bool = True
    """False: these devices are never lent."""
    price: AskedPrice | None = None
    """Needed where lend is true."""
    keep_back: KeepBack = KeepBack()
    max_duration: Duration = 86_400
    min_duration: Duration = 60
    reclaim_notice: Duration = 300
    minimum_runtime: Duration = 600
    allowed_borrowers: Annotated[tuple[Name, ...], Field(max_length=256)] | None = None
    """Tenants; None: everybody in the federation."""

    @model_validator(mode="after")
    def _what_is_lent_has_a_price(self) -> "LendingRule":
        if self.lend and self.price is None:
            raise ValueError(f"rule {self.name} lends, so it needs a price (0.00 is one)")
        if self.min_duration > self.max_duration:
            raise ValueError(f"rule {self.name}: minDuration is longer than maxDuration")
        return self


class LendingPolicySpec(Inbound):
    """The spec of a LendingPolicy object. Devices that no rule matches are not lent."""

    rules: Annotated[tuple[LendingRule, ...], Field(min_length=1, max_length=64)]
    place: Place = Place()
    """Where these devices are, where the owner wants to say so himself; node labels fill what is left open."""
    validity: Duration = 300
    """How long an advert counts when nothing more is heard from this cluster."""
    suspended: bool = False

    @model_validator(mode="after")
    def _rules_have_names_of_their_own(self) -> "LendingPolicySpec":
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("two rules have the same name")
        return self
