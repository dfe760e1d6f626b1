"""One entry of the log: what happened, to what, whose business it is. The log is outbox, watch and audit in one."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Append-only; ``revision`` rises by one with every entry, over all kinds, in the order of commits."""

    revision: int
    at: datetime
    type: str
    """``lease.active``, ``offer.changed``, …"""
    lease: str | None = None
    request: str | None = None
    offer: str | None = None
    cluster: str | None = None
    """The lender's, or the only one it is about; ``peer`` is the borrower's."""
    peer: str | None = None
    tenant: str | None = None
    peer_tenant: str | None = None
    subject: str = "broker"
    """Who made it happen: ``token:<id>``, ``cluster:<name>`` or ``broker``."""
    data: str = "{}"
    """JSON for the audit; nothing secret."""
