"""An offer and a burst policy as they are kept: the wire's JSON, opaque here, beside what is asked of them."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One offer of one cluster's last advert."""

    id: str
    cluster: str
    name: str
    digest: str
    body: str
    model: str
    region: str | None
    devices: int
    updated_at: datetime
    withdrawn_at: datetime | None = None
    revision: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What tells an offer from what it was before, without reading all of it."""

    id: str
    digest: str
    devices: int
    withdrawn: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """One BurstPolicy."""

    cluster: str
    name: str
    tenant: str
    source: str
    """``object``: it follows an object in the cluster; ``api``: it was written here."""
    spec: str
    revision: int = 0
