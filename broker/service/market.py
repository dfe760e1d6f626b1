"""What is on offer at one moment: every offer with its lender, and which devices live leases hold.

Offers change rarely and are large, so each is read and parsed once per change and kept. Which devices are taken is
read anew every time. A snapshot may be stale the moment after it was taken; that is fine, since nothing is granted
because of it (the store's constraint decides).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from broker.domain.cluster import Cluster
from broker.domain.offer import Offer
from broker.domain.placing import Lot, Shelf
from broker.service.selectors import Matcher
from broker.store.unit import Unit
from broker.wire.devices import Kind, OfferedDevice
from broker.wire.offers import AdvertisedOffer


@dataclass(frozen=True, slots=True)
class Shown:
    """One offer, parsed."""

    row: Offer
    offer: AdvertisedOffer
    lot: Lot
    devices: Mapping[str, OfferedDevice]
    """Reference → device: one of thousands must not cost a look at all."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The market at one moment."""

    at: datetime
    shown: dict[str, Shown]
    clusters: dict[str, Cluster]
    taken: set[str]

    def lots(self) -> list[Lot]:
        """Those of lenders that may lend now."""
        ready = {name for name, cluster in self.clusters.items() if cluster.lends(self.at)}
        return [shown.lot for shown in self.shown.values() if shown.lot.cluster in ready]

    def shelf(self, offer_id: str) -> Shelf:
        """What of one offer is free."""
        return Shelf.of(self.shown[offer_id].lot, self.taken)


class Market:
    """The kept, parsed offers of this process; safe to look at from several threads."""

    def __init__(self) -> None:
        self.matcher = Matcher()
        self._shown: dict[str, Shown] = {}
        self._lock = threading.Lock()

    def look(self, unit: Unit, *, now: datetime) -> Snapshot:
        """Inside a read or a write."""
        clusters = {cluster.name: cluster for cluster in unit.clusters.all()}
        heads = unit.offers.heads()
        with self._lock:
            known = self._shown
        changed = [
            name for name, revision in heads.items() if name not in known or known[name].row.revision != revision
        ]
        fresh = {row.id: self._parse(row, clusters[row.cluster]) for row in unit.offers.by_id(changed)}
        shown = {name: fresh.get(name) or known[name] for name in heads if name in fresh or name in known}
        with self._lock:
            self._shown = shown
        return Snapshot(at=now, shown=shown, clusters=clusters, taken=unit.leases.live_refs())

    def with_withdrawn(self, unit: Unit, snapshot: Snapshot, ids: Iterable[str]) -> Snapshot:
        """The snapshot and, of ``ids``, also the offers that were withdrawn: without a device."""
        gone = {}
        for row in unit.offers.by_id(name for name in ids if name not in snapshot.shown):
            shown = self._parse(row, snapshot.clusters[row.cluster])
            gone[row.id] = replace(shown, lot=replace(shown.lot, devices=()))
        return replace(snapshot, shown={**snapshot.shown, **gone}) if gone else snapshot

    def match(self, lots: Iterable[Lot], *, driver: str | None, selector: str | None) -> frozenset[str] | None:
        """Ids of the lots that suit; None: all do."""
        if driver is None and selector is None:
            return None
        return frozenset(lot.id for lot in lots if self.matcher(lot.kind, driver=driver, selector=selector))

    def _parse(self, row: Offer, cluster: Cluster) -> Shown:
        offer = AdvertisedOffer.model_validate_json(row.body)
        key = kind_key(offer.kind)
        self.matcher.learn(key, offer.kind)
        devices = {device.ref(cluster.name): device for device in offer.devices}
        return Shown(row, offer, lot_of(row.id, offer, cluster, key), devices)


def kind_key(kind: Kind) -> str:
    """One text per kind: equal kinds, equal keys."""
    return hashlib.sha256(kind.model_dump_json().encode()).hexdigest()[:32]


def lot_of(offer_id: str, offer: AdvertisedOffer, cluster: Cluster, kind: str) -> Lot:
    """An advertised offer as the placing sees it."""
    allowed = offer.terms.allowed_borrowers
    return Lot(
        id=offer_id,
        cluster=cluster.name,
        tenant=cluster.tenant,
        kind=kind,
        driver=offer.kind.driver,
        price_micros=offer.price.micros,
        min_duration_s=offer.terms.min_duration,
        max_duration_s=offer.terms.max_duration,
        allowed_tenants=None if allowed is None else frozenset(allowed),
        region=offer.place.region or "",
        provider=offer.place.provider or "",
        confidential=offer.confidential.declared,
        unit=offer.unit,
        devices=tuple(sorted((device.ref(cluster.name), device.node) for device in offer.devices)),
    )
