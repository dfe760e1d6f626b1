"""Burst policies: when, where and for how much a borrower leaves home."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from broker.wire.base import Duration, Inbound, Money, Outbound, ShortText
from broker.wire.requests import SpendView, Tier, Where


class Covers(Inbound):
    """Which pods: those in namespaces and with labels that match; empty matches all."""

    namespace_labels: Annotated[dict[str, str], Field(max_length=16)] = {}
    namespaces: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    pod_labels: Annotated[dict[str, str], Field(max_length=16)] = {}


class BurstPolicySpec(Inbound):
    """The rule, as a BurstPolicy object or over REST."""

    covers: Covers = Covers()
    after: Duration = 300
    """Leave home when a covered pod has been unschedulable for want of devices for longer than this."""
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=8)]
    """Tried in order; each names the most to pay per device-hour."""
    where: Where = Where()
    """Allowed for every tier."""
    budget: Money | None = None
    """Per calendar month (UTC), reserved at worst case; a hard stop."""
    max_duration: Duration = 86_400
    confidential: Literal["none", "prefer", "require"] = "none"
    interruptible: bool = True
    """False: only offers that are surely left to the borrower for the whole duration."""
    return_home: bool = True
    """Give the lease back as soon as the pod it was made for is gone or runs at home."""
    suspended: bool = False

    @model_validator(mode="after")
    def _tiers_have_names_of_their_own(self) -> "BurstPolicySpec":
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise ValueError("two tiers have the same name")
        return self


class BurstPolicyStatus(Outbound):
    """What the policy has done, and may still do."""

    spend: SpendView
    live_leases: int = 0
    message: ShortText = ""


class BurstPolicyView(Outbound):
    """A burst policy and how it stands."""

    cluster: str
    name: str
    source: Literal["object", "api"]
    spec: BurstPolicySpec
    status: BurstPolicyStatus
    revision: int
