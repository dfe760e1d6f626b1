"""When a lease is over on this side, without asking anybody (design §5, reliability.md §1.2).

``e`` is the skew bound in seconds. The borrower stops at ``exp − e`` on its clock. The lender stops at ``exp + e`` on
its clock, or when ``(exp − iat) + e`` have passed since it received the token by a clock that nobody can set: whichever
is first. So a clock that is put back doesn't make a lease longer than was signed, by more than ``e``.
"""

from dataclasses import dataclass
from datetime import datetime

from broker.wire.leases import LeaseClaims


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks: the wall's (aware, UTC) and the monotonic one (seconds)."""

    wall: datetime
    monotonic: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """When a token came here, and how long it was good for from then on at most. Seconds, monotonic."""

    at: float
    good_for: float


def received(claims: LeaseClaims, now: Now, *, again: bool = False) -> Receipt:
    """The receipt of a token. ``again``: read back after a restart, so part of its time has passed by the wall."""
    life = float(claims.exp - claims.iat)
    if again:
        life = max(0.0, min(life, claims.exp - now.wall.timestamp()))
    return Receipt(at=now.monotonic, good_for=life)


def borrower_seconds(claims: LeaseClaims, now: Now, *, skew: float) -> float:
    """Seconds until the borrower stops; zero or less: it has to stop now."""
    return claims.exp - skew - now.wall.timestamp()


def lender_seconds(claims: LeaseClaims, receipt: Receipt, now: Now, *, skew: float) -> float:
    """Seconds until the lender takes its devices back; zero or less: now."""
    by_wall = claims.exp + skew - now.wall.timestamp()
    by_monotonic = receipt.at + receipt.good_for + skew - now.monotonic
    return min(by_wall, by_monotonic)
