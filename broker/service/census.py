"""How the federation stands at this moment, in numbers, for whoever draws curves."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.service.core import Core


@dataclass(frozen=True, slots=True)
class Census:
    """Counted in one consistent look."""

    leases: Mapping[str, int]
    """Live and ended ones, by state."""
    open_requests: int
    offers: int
    devices: int
    """On offer and in no live lease."""
    leased_devices: int
    """In live leases."""
    last_seen: Mapping[str, float]
    """Per member: when its agent was last heard, in seconds since the epoch."""
    revision: int
    """Of the log: how many events there have been."""


async def census(broker: Core) -> Census:
    """Count."""
    snapshot, leases, requests, revision = await broker.store.read(
        lambda unit: (
            broker.market.look(unit, now=broker.now()),
            unit.leases.by_state(),
            len(unit.requests.open()),
            unit.revision,
        )
    )
    ready = {lot.id for lot in snapshot.lots()}
    return Census(
        leases=leases,
        open_requests=requests,
        offers=len(ready),
        devices=sum(snapshot.shelf(name).free() for name in ready),
        leased_devices=sum(map(len, snapshot.taken.values())),
        last_seen={
            name: cluster.last_seen_at.timestamp()
            for name, cluster in snapshot.clusters.items()
            if cluster.last_seen_at is not None and cluster.revoked_at is None
        },
        revision=revision,
    )
