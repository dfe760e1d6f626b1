"""A member of the federation, and whether it may lend at this moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.domain.rules import Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """One cluster as the broker knows it."""

    name: str
    tenant: str
    signing_key: str
    """Public JWK as JSON: its adverts and reports verify under it."""
    sealing_key: str
    credential_hash: str
    joined_at: datetime
    version: str = ""
    revoked_at: datetime | None = None
    last_seen_at: datetime | None = None
    advert_sequence: int = 0
    report_sequence: int = 0
    fence: int = 0
    """The highest fence given out or reported; it only rises."""
    clock_offset_ms: int | None = None
    clock_safe: bool = True
    resynced: bool = False
    """It has told this broker, since its start, every lease it knows."""
    silent: bool = False
    valid_until: datetime | None = None
    """Of its last advert."""
    counts: str = "{}"
    message: str = ""
    revision: int = 0

    @property
    def state(self) -> str:
        """The worst that is true of it: ``Revoked``, ``Silent``, ``ClockUnsafe``, ``Recovering`` or ``Ready``."""
        if self.revoked_at is not None:
            return "Revoked"
        if self.silent:
            return "Silent"
        if not self.clock_safe:
            return "ClockUnsafe"
        return "Ready" if self.resynced else "Recovering"

    def lends(self, now: datetime) -> bool:
        """Whether new leases may be granted on its devices."""
        return self.state == "Ready" and self.valid_until is not None and now < self.valid_until

    @property
    def why(self) -> str:
        """The sentence for whoever wonders about the state."""
        match self.state:
            case "Revoked":
                return "Removed from the federation by an administrator."
            case "Silent":
                return "Its agent is not heard of; nothing new is lent, and running leases are honoured until they end."
            case "ClockUnsafe":
                return (
                    f"Its clock is off by {(self.clock_offset_ms or 0) / 1000:+.1f} s, more than the bound: "
                    "no new leases until it is set right (check NTP on the cluster's nodes)."
                )
            case "Recovering":
                return "The broker waits for its agent to report every lease it knows before granting new ones."
            case _:
                return self.message


def clock_offset(*, sent_at: datetime, now: datetime) -> timedelta:
    """How far the sender's clock is ahead (negative: behind); what the way here took counts as behind."""
    return sent_at - now


def clock_is_safe(offset: timedelta, rules: Rules) -> bool:
    return abs(offset) <= rules.skew
