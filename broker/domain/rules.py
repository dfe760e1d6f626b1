"""The numbers of the house, in one place. The defaults are the design's (§5, Time)."""

from dataclasses import dataclass, field
from datetime import timedelta

from broker.domain.egress import Egress


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Every duration and price that a decision of the broker depends on."""

    skew: timedelta = timedelta(seconds=5)
    """e: how far a cluster's clock may be off. The borrower stops at exp − e, the lender at exp + e."""
    drain: timedelta = timedelta(seconds=30)
    """D: how long a lender drains at most."""
    quarantine: timedelta = timedelta(seconds=15)
    """Q: how long devices rest after a lease that ended uncleanly."""
    hold: timedelta = timedelta(seconds=60)
    """How long a lender may take to hold what was reserved."""
    silence: timedelta = timedelta(seconds=45)
    """A cluster that was not heard of for so long is silent: its offers are stale, its leases orphaned."""
    keep_answers: timedelta = timedelta(hours=24)
    """How long an Idempotency-Key is remembered."""
    keep_events: timedelta = timedelta(days=7)
    """How far back a watch can resume."""
    attempts: int = 5
    """How often one request is placed at most; all but the first follow a conflict."""
    egress: Egress = field(default_factory=Egress)
    """What bringing data to another region costs."""
