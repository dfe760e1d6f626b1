"""What one line of an agent's report means for one lease. Pure: the shell verified the signature and the sender.

A lender's word counts for the fence it names and no other, so a late message about an older lease of the same devices
changes nothing. What doesn't fit the lease's state is no error: agents repeat themselves, messages cross, and the
answer to a confused agent is in what is desired of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from broker.domain.lease import Ending, Event, Lease, State

NOTHING_HELD = frozenset({"released", "conflict", "refused"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One line of a report."""

    role: str
    phase: str
    fence: int = 0
    generation: int = 0
    refs: frozenset[str] = frozenset()
    """conflict: the devices that local work took."""
    reason: str = ""
    sealed_credential: str | None = None
    credential_serial: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the lease becomes, and what is logged; no types: nothing changed."""

    lease: Lease
    types: tuple[str, ...] = ()
    failed: frozenset[str] = frozenset()
    """What the request leaves out when it looks again."""
    sign: bool = False
    """It has just become active: sign it before it is saved."""


def hear(lease: Lease, word: Word, *, now: datetime) -> Outcome:
    """What this word does to this lease."""
    if word.role == "lender":
        return _lender(lease, word, now)
    return _borrower(lease, word, now)


def _lender(lease: Lease, word: Word, now: datetime) -> Outcome:
    if word.fence != lease.fence:
        return Outcome(lease=lease)
    if word.phase in NOTHING_HELD:
        return _nothing_held(lease, word, now)
    if lease.state is State.ENDED:
        # It should hold nothing any more: keep telling it so until it says that it doesn't.
        return Outcome(lease=lease) if lease.lender_open else _saved(replace(lease, lender_open=True), "lease.lingers")
    if word.phase == "held" and lease.state is State.RESERVED:
        held = _with_credential(lease.prepared(fence=word.fence), word)
        return Outcome(lease=held.activated(now=now), types=("lease.prepared", "lease.active"), sign=True)
    if word.phase in ("held", "lent") and lease.state is State.ORPHANED:
        after = lease.resumed(now=now)
        return _saved(after, "lease.resumed" if after.state is State.ACTIVE else "lease.draining")
    if word.phase == "draining" and lease.state in (State.ACTIVE, State.ORPHANED):
        return _saved(lease.given_up(now=now, message=word.reason[:1_024]), "lease.draining")
    after = lease
    if lease.state is State.ACTIVE:
        after = _with_credential(lease, word)
        if word.phase == "lent" and not lease.lender_mirrored:
            after = replace(after, lender_mirrored=True)
    if after == lease:
        return Outcome(lease=lease)
    return _saved(after, "lease.credential" if after.lender_mirrored == lease.lender_mirrored else "lease.mirrored")


def _nothing_held(lease: Lease, word: Word, now: datetime) -> Outcome:
    match lease.state:
        case State.ENDED:
            if not lease.lender_open:
                return Outcome(lease=lease)
            return _saved(replace(lease, lender_open=False, lender_mirrored=False), "lease.clean")
        case State.RESERVED if word.phase != "released":
            text = word.reason or "The lender's own work took a device first."
            failed = word.refs if word.phase == "conflict" and word.refs else frozenset({lease.offer})
            return Outcome(
                lease=lease.conflicted(now=now, message=text[:1_024]), types=("lease.conflict",), failed=failed
            )
        case _:
            after = lease.released(now=now, fence=word.fence, message=word.reason[:1_024])
            return Outcome(lease=after, types=("lease.ended",), failed=frozenset({lease.offer}))


def _borrower(lease: Lease, word: Word, now: datetime) -> Outcome:
    if word.phase == "mirrored":
        if lease.state not in (State.ACTIVE, State.ORPHANED):
            # It still has what it should have given up: say so again.
            if lease.borrower_open:
                return Outcome(lease=lease)
            return _saved(replace(lease, borrower_open=True), "lease.lingers")
        if lease.borrower_mirrored:
            return Outcome(lease=lease)
        return _saved(replace(lease, borrower_mirrored=True, borrower_open=True), "lease.mirrored")
    if word.phase in ("gone", "refused"):
        if lease.state in (State.ACTIVE, State.ORPHANED) and (lease.borrower_mirrored or word.phase == "refused"):
            text = word.reason or "The borrower's cluster gave it back."
            # It stops a little before the end, by its own clock, and says so.
            ending = Ending.EXPIRED if word.reason == Ending.EXPIRED.value else Ending.RETURNED
            after = lease.drained(now=now, ending=ending, message=text[:1_024])
            return _saved(replace(after, borrower_open=False, borrower_mirrored=False), "lease.draining")
        if lease.state is not State.ACTIVE and (lease.borrower_open or lease.borrower_mirrored):
            return _saved(replace(lease, borrower_open=False, borrower_mirrored=False), "lease.clean")
    return Outcome(lease=lease)


def _with_credential(lease: Lease, word: Word) -> Lease:
    """With the newest sealed credential; an older one never replaces it."""
    if word.sealed_credential is None or (
        lease.sealed_credential and word.credential_serial <= lease.credential_serial
    ):
        return lease
    return replace(lease, sealed_credential=word.sealed_credential, credential_serial=word.credential_serial)


def _saved(lease: Lease, type_: str) -> Outcome:
    return Outcome(lease=lease, types=(type_,))


def silent(lease: Lease) -> Lease | None:
    """Its lender has become silent: what that means, if anything. What isn't active yet ends by its hold's deadline."""
    if lease.state in (State.ACTIVE, State.DRAINING) and lease.can(Event.LOSE):
        return lease.lost()
    return None
