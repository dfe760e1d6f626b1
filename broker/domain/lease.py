"""The life of a lease: who may have the devices, until when, and how it ends.

One table says what can happen (``TRANSITIONS``; ``python -m broker.domain.lease`` prints it), and one method,
``Lease.apply``, makes it happen; everything else here decides *when*. Nothing reads a clock: whoever calls says what
time it is. A lease counts against its devices from RESERVED until ENDED, whatever goes wrong in between, because the
only proof that a device is free is its lender's signed word, or, after an unclean end, time *and* the lender's report
that the device is idle.

The borrower stops at ``exp − e`` and the lender at ``exp + e``, each by its own clock; so at ``exp + 2e + D + Q``
nobody can still be working under the lease (e: skew bound, D: drain, Q: quarantine; design §5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from broker.domain.errors import BadTerms, Conflict, IllegalTransition
from broker.domain.rules import Rules
from broker.kit.money import cost_micros


class State(StrEnum):
    """Whose move it is."""

    PENDING = "Pending"  # the broker's: being written, promised to nobody
    RESERVED = "Reserved"  # the lender's: hold the devices in your cluster, or say that you can't
    PREPARED = "Prepared"  # the broker's: the devices are held, sign the lease
    ACTIVE = "Active"  # the borrower's: work
    DRAINING = "Draining"  # the lender's: end the work, release, and say so
    ORPHANED = "Orphaned"  # the lender is silent; it may still honour the lease
    QUARANTINED = "Quarantined"  # nobody can be working any more, but nobody has said that the devices are idle
    ENDED = "Ended"  # nobody's


class Event(StrEnum):
    """What can happen to a lease."""

    RESERVE = "Reserve"
    REFUSE = "Refuse"
    PREPARE = "Prepare"
    CONFLICT = "Conflict"
    ACTIVATE = "Activate"
    RENEW = "Renew"
    DRAIN = "Drain"
    RELEASE = "Release"
    LOSE = "Lose"
    RESUME = "Resume"
    QUARANTINE = "Quarantine"
    CLEAR = "Clear"


class Ending(StrEnum):
    """Why a lease ends or ended."""

    RETURNED = "returned"
    EXPIRED = "expired"
    RECLAIMED = "reclaimed"
    REVOKED = "revoked"
    CANCELLED = "cancelled"
    CONFLICT = "conflict"
    TIMED_OUT = "timed-out"
    LOST = "lost"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.PENDING, Event.RESERVE): State.RESERVED,
        (State.PENDING, Event.REFUSE): State.ENDED,
        (State.RESERVED, Event.PREPARE): State.PREPARED,
        (State.RESERVED, Event.CONFLICT): State.ENDED,  # lender-signed: it holds nothing
        (State.RESERVED, Event.DRAIN): State.DRAINING,
        (State.RESERVED, Event.LOSE): State.ORPHANED,
        (State.PREPARED, Event.ACTIVATE): State.ACTIVE,
        (State.PREPARED, Event.DRAIN): State.DRAINING,
        (State.PREPARED, Event.LOSE): State.ORPHANED,
        (State.ACTIVE, Event.RENEW): State.ACTIVE,
        (State.ACTIVE, Event.DRAIN): State.DRAINING,
        (State.ACTIVE, Event.LOSE): State.ORPHANED,
        (State.DRAINING, Event.RELEASE): State.ENDED,
        (State.DRAINING, Event.LOSE): State.ORPHANED,
        (State.DRAINING, Event.QUARANTINE): State.QUARANTINED,
        (State.ORPHANED, Event.RESUME): State.ACTIVE,
        (State.ORPHANED, Event.DRAIN): State.DRAINING,
        (State.ORPHANED, Event.RELEASE): State.ENDED,
        (State.ORPHANED, Event.QUARANTINE): State.QUARANTINED,
        (State.QUARANTINED, Event.RELEASE): State.ENDED,
        (State.QUARANTINED, Event.CLEAR): State.ENDED,  # the lender reports the devices idle
    }
)

_BY_THE_CLOCK = timedelta(seconds=30)
"""A lender that ends a lease so shortly before the end does so because of its clock."""
LIVE = frozenset(State) - {State.PENDING, State.ENDED}
"""While a lease is in one of these, its devices are in no other lease: the unique partial index sees to it."""
SIGNED = frozenset({State.ACTIVE, State.ORPHANED})
"""In these a borrower may be working under a signed lease."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One lease, as of one moment; ``body`` is what is signed of it and never changes."""

    id: str
    request: str
    offer: str
    lender: str
    borrower: str
    tenant: str
    """The borrower's; ``lender_tenant`` is the other."""
    lender_tenant: str
    devices: int
    price_micros: int
    """µUSD per device-hour."""
    duration_s: int
    max_duration_s: int
    reclaim_notice_s: int
    minimum_runtime_s: int
    transfer_micros: int = 0
    """µUSD that bringing the borrower's data there is reckoned to cost; not the lender's to ask."""
    body: str
    created_at: datetime
    policy: str | None = None
    workload_namespace: str = "default"
    fence: int = 0
    """Of every device in it: the lender's next number when it was reserved."""
    state: State = State.PENDING
    generation: int = 1
    """Rises with every renewal; stands in the signed lease."""
    revision: int = 0
    hold_until: datetime | None = None
    """The lender gives up holding then, if it heard nothing more."""
    active_at: datetime | None = None
    expires_at: datetime | None = None
    drain_from: datetime | None = None
    """Known early: the end of a reclaim's notice."""
    draining_at: datetime | None = None
    """The borrower pays until here."""
    ended_at: datetime | None = None
    ending: Ending | None = None
    message: str = ""
    token: str | None = None
    sealed_credential: str | None = None
    credential_serial: int = 0
    lender_open: bool = False
    """The lender may still have something of it; it must say «released» (or that it never held it)."""
    borrower_open: bool = False
    lender_mirrored: bool = False
    borrower_mirrored: bool = False

    # --- the one door ---------------------------------------------------------------------------------------------

    def can(self, event: Event) -> bool:
        return (self.state, event) in TRANSITIONS

    def apply(self, event: Event, **changes: Any) -> Lease:
        """The lease after ``event``; ``IllegalTransition`` where the table has no such row."""
        try:
            state = TRANSITIONS[self.state, event]
        except KeyError:
            raise IllegalTransition(self.id, self.state.value, event.value) from None
        return replace(self, state=state, **changes)

    # --- from a promise to a contract ------------------------------------------------------------------------------

    def reserved(self, *, fence: int, now: datetime, rules: Rules) -> Lease:
        """The devices are promised: the lender has until ``hold_until`` to hold them."""
        return self.apply(Event.RESERVE, fence=fence, hold_until=now + rules.hold, lender_open=True)

    def prepared(self, *, fence: int) -> Lease:
        """The lender holds the devices under this very fence; ``Conflict`` for any other."""
        if fence != self.fence:
            raise Conflict(f"Lease {self.id} has fence {self.fence}; what was held under {fence} isn't it.")
        return self.apply(Event.PREPARE)

    def activated(self, *, now: datetime) -> Lease:
        """The clock starts; sign it in the same transaction."""
        # Whole seconds, because exp is signed as such (RFC 7519 NumericDate) and both sides must read one number.
        end = now.replace(microsecond=0) + timedelta(seconds=self.duration_s)
        return self.apply(Event.ACTIVATE, active_at=now, expires_at=end, borrower_open=True)

    def conflicted(self, *, now: datetime, message: str) -> Lease:
        """The lender says, signed, that it holds nothing of it."""
        return self.apply(
            Event.CONFLICT, ended_at=now, ending=Ending.CONFLICT, message=message, lender_open=False, draining_at=now
        )

    # --- more time, less time --------------------------------------------------------------------------------------

    @property
    def latest_end(self) -> datetime | None:
        """No renewal passes this: the start and the lender's longest duration."""
        return (
            None
            if self.active_at is None
            else self.active_at.replace(microsecond=0) + timedelta(seconds=self.max_duration_s)
        )

    def renewed(self, *, now: datetime, duration_s: int) -> Lease:
        """More time, counted from now, as far as the terms allow; never less than there was.

        ``BadTerms`` when there is nothing to gain, ``Conflict`` while the lender is taking the devices back.
        """
        if not self.can(Event.RENEW):
            raise IllegalTransition(self.id, self.state.value, Event.RENEW.value)
        assert self.expires_at is not None
        assert self.latest_end is not None
        if self.drain_from is not None:
            raise Conflict(
                f"Lease {self.id} is being taken back at {self.drain_from:%H:%M:%S} UTC; it can't be renewed."
            )
        if now >= self.expires_at:
            raise Conflict(f"Lease {self.id} expired at {self.expires_at:%H:%M:%S} UTC.")
        end = min(now.replace(microsecond=0) + timedelta(seconds=duration_s), self.latest_end)
        if end <= self.expires_at:
            raise BadTerms(
                f"Lease {self.id} already runs until {self.expires_at:%Y-%m-%d %H:%M:%S} UTC, and its terms end it at "
                f"{self.latest_end:%Y-%m-%d %H:%M:%S} UTC at the latest; there is nothing to gain."
            )
        return self.apply(Event.RENEW, expires_at=end, generation=self.generation + 1)

    def earliest_reclaim(self, now: datetime) -> datetime:
        """When the lender may have the devices back: after the notice, and not before the minimum runtime."""
        begun = self.active_at or now
        return max(now + timedelta(seconds=self.reclaim_notice_s), begun + timedelta(seconds=self.minimum_runtime_s))

    def reclaimed(self, *, now: datetime, message: str) -> Lease:
        """The notice begins; what isn't active yet ends at once."""
        if self.state in (State.RESERVED, State.PREPARED):
            return self.drained(now=now, ending=Ending.RECLAIMED, message=message)
        if self.state is not State.ACTIVE:
            raise IllegalTransition(self.id, self.state.value, "Reclaim")
        at = self.drain_from or self.earliest_reclaim(now)
        return replace(self, drain_from=at, ending=Ending.RECLAIMED, message=message)

    # --- every end goes this way -----------------------------------------------------------------------------------

    def drained(self, *, now: datetime, ending: Ending, message: str = "") -> Lease:
        """The end begins: the lender ends the work and releases."""
        return self.apply(
            Event.DRAIN,
            ending=self.ending or ending,
            message=message or self.message,
            draining_at=self.draining_at or now,
        )

    def released(self, *, now: datetime, fence: int, message: str = "") -> Lease:
        """The lender says, signed, that it holds nothing any more; counts for this lease's fence only.

        Whatever the state: a lender that gave up by itself (expiry without us, an owner's decision) both drains and
        releases in one word.
        """
        if fence != self.fence:
            raise Conflict(f"Lease {self.id} has fence {self.fence}; a release of {fence} isn't about it.")
        lease = self
        if not lease.can(Event.RELEASE):
            lease = lease.given_up(now=now, message=message)
        return lease.apply(
            Event.RELEASE,
            ended_at=now,
            ending=lease.ending or Ending.LOST,
            draining_at=lease.draining_at or now,
            lender_open=False,
            lender_mirrored=False,
        )

    def given_up(self, *, now: datetime, message: str = "") -> Lease:
        """The lender began to end it by itself: by its own clock at the end, or for a reason of its own before."""
        ending = Ending.LOST
        if self.active_at is None:
            ending = Ending.TIMED_OUT
        elif self.expires_at is not None and now >= self.expires_at - _BY_THE_CLOCK:
            ending = Ending.EXPIRED
        return self.drained(now=now, ending=ending, message=message)

    def lost(self) -> Lease:
        """The lender is silent: it may go on honouring the lease, and nobody gets its devices."""
        return self.apply(Event.LOSE)

    def resumed(self, *, now: datetime) -> Lease:
        """The lender is back and still lends: go on, or drain where the end has come in the meantime."""
        if self.state is not State.ORPHANED:
            raise IllegalTransition(self.id, self.state.value, Event.RESUME.value)
        ends = [end for end in (self.expires_at, self.drain_from) if end is not None]
        if self.draining_at is None and self.expires_at is not None and now < min(ends):
            return self.apply(Event.RESUME)  # a reclaim's notice goes on, too: it was promised in the terms
        return self.drained(now=now, ending=Ending.EXPIRED if self.active_at else Ending.TIMED_OUT)

    def quarantined(self, *, now: datetime) -> Lease:
        """Time is up for everybody, and nobody has said that the devices are idle."""
        return self.apply(Event.QUARANTINE, ending=self.ending or Ending.LOST, draining_at=self.draining_at or now)

    def cleared(self, *, now: datetime) -> Lease:
        """The lender offers the devices again after that time: they are idle."""
        return self.apply(Event.CLEAR, ended_at=now, lender_open=False, lender_mirrored=False)

    # --- when to look again ----------------------------------------------------------------------------------------

    def unclean_until(self, rules: Rules) -> datetime:
        """exp + 2e + D + Q: from here on nobody can be working under it (before it was active: the hold's end)."""
        end = self.expires_at or self.hold_until or self.created_at
        return end + 2 * rules.skew + rules.drain + rules.quarantine

    def due_at(self, rules: Rules) -> datetime | None:
        """When time itself will next change it; None: never."""
        match self.state:
            case State.RESERVED | State.PREPARED:
                return self.hold_until
            case State.ACTIVE:
                ends = [end for end in (self.expires_at, self.drain_from) if end is not None]
                return min(ends) if ends else None
            case State.DRAINING | State.ORPHANED:
                return self.unclean_until(rules)
            case _:
                return None

    def overdue(self, *, now: datetime, rules: Rules) -> tuple[Event, Lease] | None:
        """What time has done to it, if anything."""
        due = self.due_at(rules)
        if due is None or now < due:
            return None
        match self.state:
            case State.RESERVED | State.PREPARED:
                text = f"The lender {self.lender} did not hold the devices within {int(rules.hold.total_seconds())} s."
                return Event.DRAIN, self.drained(now=now, ending=Ending.TIMED_OUT, message=text)
            case State.ACTIVE:
                early = self.drain_from is not None and self.drain_from == due
                lease = self if early else replace(self, ending=None)
                return Event.DRAIN, lease.drained(now=now, ending=Ending.EXPIRED)
            case _:
                return Event.QUARANTINE, self.quarantined(now=now)

    # --- money -----------------------------------------------------------------------------------------------------

    @property
    def cost_micros(self) -> int:
        """µUSD, transfer included: at worst while it lives, what it did cost once it has ended (nothing where it never
        was active)."""
        if self.draining_at is not None and self.state in (State.DRAINING, State.QUARANTINED, State.ENDED):
            if self.active_at is None or self.expires_at is None:
                return 0
            used = min(self.draining_at, self.expires_at) - self.active_at
            seconds = max(0, -(-used // timedelta(seconds=1)))
        elif self.active_at is not None and self.expires_at is not None:
            seconds = -(-(self.expires_at - self.active_at) // timedelta(seconds=1))
        else:
            seconds = self.duration_s
        paid = cost_micros(price_micros=self.price_micros, devices=self.devices, seconds=seconds)
        return paid + self.transfer_micros


def render_table() -> str:
    """The transition table as text: a row per state, a column per event."""
    short = {event: event.value[:8] for event in Event}
    lines = ["".join([f"{'':<12}", *(f"{short[event]:<12}" for event in Event)])]
    for state in State:
        cells = [TRANSITIONS.get((state, event)) for event in Event]
        lines.append("".join([f"{state.value:<12}", *(f"{cell.value if cell else '·':<12}" for cell in cells)]))
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    print(render_table())
