"""What is on offer at one moment: every offer with its lender, and what of it no live lease holds.

A federation may have a hundred thousand devices, and hardly any of them changes between two looks. So what is known is
kept, and a look reads from the log which leases and offers changed since, and renews only these: the rest of a snapshot
is the same objects as before. Where the log doesn't reach back so far, everything is read anew. A snapshot may be stale
the moment after it was taken; that is fine, since nothing is granted because of it (the store's constraint decides).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from broker.domain.cluster import Cluster
from broker.domain.offer import Offer
from broker.domain.placing import Stall, Stock
from broker.domain.shelf import Lot, Shelf
from broker.dra.model import DeviceView
from broker.kit.kept import Kept
from broker.service.selectors import Matcher
from broker.store.unit import Unit
from broker.wire.devices import Kind, OfferedDevice, ref_of
from broker.wire.offers import AdvertisedOffer

_log = structlog.stdlib.get_logger(__name__)
_NOTHING: frozenset[str] = frozenset()
FRESH = timedelta(seconds=1)
"""A heartbeat changes nothing that is logged but for how long a cluster's offers hold; it may be seen so much later."""
CHANGES = 5_000
"""More leases changed than so many: reading all that live is no dearer than reading these one by one."""


Device = tuple[str | None, ...]
"""One device's fields, in the order of ``DEVICE``: of a hundred thousand, models would cost ten times the memory, and
half a second whenever Python looks for garbage."""
DEVICE = tuple(OfferedDevice.model_fields)
NODE = DEVICE.index("node")


@dataclass(frozen=True, slots=True)
class Shown:
    """One offer, parsed."""

    row: Offer
    offer: AdvertisedOffer
    """Without its devices, of which there are thousands."""
    lot: Lot
    devices: Mapping[str, Device]
    """By reference."""
    view: DeviceView | None
    """What a selector sees of its devices."""


class Catalogue:
    """Which kinds are on offer, and which offers satisfy a selector; the same as long as no offer comes, goes or
    changes its kind."""

    def __init__(self, shown: Mapping[str, Shown], matcher: Matcher) -> None:
        self.kinds = {name: each.lot.kind for name, each in shown.items()}
        self._of: dict[str, list[str]] = {}
        self._views: dict[str, DeviceView | None] = {}
        for name, each in shown.items():
            self._of.setdefault(each.lot.kind, []).append(name)
            self._views[each.lot.kind] = each.view
        self._matcher = matcher
        self._found: Kept[tuple[str | None, str | None], frozenset[str]] = Kept(1_024)

    def match(self, *, driver: str | None, selector: str | None) -> frozenset[str] | None:
        """Ids of the offers that suit; None: all do."""
        if driver is None and selector is None:
            return None
        found = self._found.get((driver, selector))
        if found is None:
            found = frozenset(
                name
                for kind, names in self._of.items()
                if self._matcher(kind, self._views[kind], driver=driver, selector=selector)
                for name in names
            )
            self._found.keep((driver, selector), found)
        return found


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The market at one moment."""

    at: datetime
    shown: Mapping[str, Shown]
    clusters: Mapping[str, Cluster]
    stalls: Mapping[str, Stall]
    """Offer → what is free of it."""
    taken: Mapping[str, frozenset[str]]
    """Lender → devices in live leases."""
    catalogue: Catalogue

    def lots(self) -> list[Lot]:
        """Those of lenders that may lend now."""
        return [stall.shelf.lot for stall in self._open()]

    def shelf(self, offer_id: str) -> Shelf:
        """What of one offer is free; not to be taken from."""
        return self.stalls[offer_id].shelf

    def stock(self) -> Stock:
        """All that may be lent now, to take from."""
        return Stock(self._open())

    def without(self, refs: Iterable[str]) -> Snapshot:
        """As it would be with these devices taken as well."""
        more: dict[str, set[str]] = {}
        for ref in refs:
            more.setdefault(_lender(ref), set()).add(ref)
        taken = {**self.taken, **{name: self.taken.get(name, _NOTHING) | of for name, of in more.items()}}
        return replace(self, taken=taken, stalls=_stalls(self.stalls, self.shown, taken, more.keys()))

    def _open(self) -> list[Stall]:
        ready = {name for name, cluster in self.clusters.items() if cluster.lends(self.at)}
        return [stall for stall in self.stalls.values() if stall.shelf.lot.cluster in ready]


def nothing(at: datetime) -> Snapshot:
    """A market in which there is nothing."""
    return Snapshot(at=at, shown={}, clusters={}, stalls={}, taken={}, catalogue=Catalogue({}, Matcher()))


@dataclass(frozen=True)
class _Known:
    """All that a process knows of the market, as of one revision; never changed, only replaced."""

    revision: int
    at: datetime
    """When the clusters were read."""
    shown: Mapping[str, Shown]
    clusters: Mapping[str, Cluster]
    stalls: Mapping[str, Stall]
    leases: Mapping[str, Mapping[str, frozenset[str]]]
    """Lender → live lease → devices."""
    taken: Mapping[str, frozenset[str]]
    catalogue: Catalogue
    lender_of: Mapping[str, str] = field(default_factory=dict)
    """Live lease → lender."""


class Market:
    """What this process knows of the market; safe to look at from several threads."""

    def __init__(self) -> None:
        self._matcher = Matcher()
        self._known: _Known | None = None
        self._lock = threading.Lock()

    def look(self, unit: Unit, *, now: datetime) -> Snapshot:
        """Inside a read."""
        revision = unit.revision
        with self._lock:  # whoever comes meanwhile finds the work done
            known = self._known
            if known is None or not self._follows(unit, known, revision):
                known = self._all(unit, revision, now)
            elif revision > known.revision or not timedelta(0) <= now - known.at < FRESH:
                known = self._renewed(unit, known, revision, now)
            self._known = known
        return Snapshot(
            at=now,
            shown=known.shown,
            clusters=known.clusters,
            stalls=known.stalls,
            taken=known.taken,
            catalogue=known.catalogue,
        )

    def with_withdrawn(self, unit: Unit, snapshot: Snapshot, ids: Iterable[str]) -> Snapshot:
        """The snapshot and, of ``ids``, also the offers that were withdrawn: without a device."""
        gone = {}
        for name, shown in self._parsed(unit, (each for each in ids if each not in snapshot.shown), snapshot.clusters):
            gone[name] = replace(shown, lot=replace(shown.lot, devices=()))
        if not gone:
            return snapshot
        stalls = {name: Stall.of(Shelf.of(shown.lot, _NOTHING)) for name, shown in gone.items()}
        return replace(snapshot, shown={**snapshot.shown, **gone}, stalls={**snapshot.stalls, **stalls})

    # --- what is known, and what changed ----------------------------------------------------------------------------

    def _follows(self, unit: Unit, known: _Known, revision: int) -> bool:
        """The log leads from what is known to now. Another thread may know more than this look sees: also good."""
        return revision <= known.revision or unit.log.oldest() <= known.revision + 1

    def _all(self, unit: Unit, revision: int, now: datetime) -> _Known:
        clusters = {cluster.name: cluster for cluster in unit.clusters.all()}
        shown = dict(self._parsed(unit, unit.offers.heads(), clusters))
        leases: dict[str, dict[str, frozenset[str]]] = {}
        for lease, refs in unit.leases.live_devices().items():
            leases.setdefault(_lender(refs[0]), {})[lease] = frozenset(refs)
        taken = {lender: _NOTHING.union(*held.values()) for lender, held in leases.items()}
        return _Known(
            revision=revision,
            at=now,
            shown=shown,
            clusters=clusters,
            stalls=_stalls({}, shown, taken, clusters.keys()),
            leases=leases,
            taken=taken,
            catalogue=Catalogue(shown, self._matcher),
            lender_of={lease: lender for lender, held in leases.items() for lease in held},
        )

    def _renewed(self, unit: Unit, known: _Known, revision: int, now: datetime) -> _Known:
        leases, offers, others = unit.log.touched(known.revision)
        if len(leases) > CHANGES:
            return self._all(unit, revision, now)
        if others or offers or not timedelta(0) <= now - known.at < FRESH:
            clusters = {cluster.name: cluster for cluster in unit.clusters.all()}
            known = replace(known, clusters=clusters, at=now)
        moved: set[str] = set()
        if leases:
            known, moved = _with_leases(known, leases, unit.leases.live_devices(leases))
        if offers:
            fresh = dict(self._parsed(unit, offers, known.clusters))
            kept = {name: each for name, each in known.shown.items() if name not in offers}
            shown = {**kept, **{name: each for name, each in fresh.items() if each.row.withdrawn_at is None}}
            same = len(shown) == len(known.shown) and all(
                known.catalogue.kinds.get(name) == each.lot.kind for name, each in fresh.items() if name in shown
            )
            catalogue = known.catalogue if same else Catalogue(shown, self._matcher)
            known = replace(known, shown=shown, catalogue=catalogue)
        if moved or offers:
            known = replace(known, stalls=_stalls(known.stalls, known.shown, known.taken, moved))
        return replace(known, revision=max(known.revision, revision))

    def _parsed(self, unit: Unit, ids: Iterable[str], clusters: Mapping[str, Cluster]) -> Iterable[tuple[str, Shown]]:
        """Those that can be read; one that can't is named in the log and is no offer, and stops nobody else."""
        for row in unit.offers.by_id(ids):
            try:
                yield row.id, self._shown(row, clusters[row.cluster])
            except Exception:
                _log.exception("offer unreadable", offer=row.id, cluster=row.cluster, name=row.name)

    def _shown(self, row: Offer, cluster: Cluster) -> Shown:
        body = json.loads(row.body)  # our own writing: it was checked when the advert came
        said = body.pop("devices")
        offer = AdvertisedOffer.model_validate_json(json.dumps({**body, "devices": []}))
        devices = {
            ref_of(cluster.name, device["driver"], device["pool"], device["name"]): tuple(map(device.get, DEVICE))
            for device in said
        }
        nodes = tuple(sorted((ref, fields[NODE]) for ref, fields in devices.items()))
        key = kind_key(offer.kind)
        lot = lot_of(row.id, offer, cluster, kind=key, devices=nodes)
        return Shown(row, offer, lot, devices, self._matcher.view(key, offer.kind))


def _with_leases(known: _Known, changed: AbstractSet[str], live: Mapping[str, list[str]]) -> tuple[_Known, set[str]]:
    """With what these leases hold now, and the lenders for whom that is news. A lease's devices never change."""
    of = dict(known.lender_of)
    leases = dict(known.leases)
    moved: set[str] = set()
    for lease in changed:
        lender = of.get(lease)
        if (lender is not None) == (lease in live):
            continue  # held before and still, or not
        if lender is None:
            lender = of[lease] = _lender(live[lease][0])
            leases[lender] = {**leases.get(lender, {}), lease: frozenset(live[lease])}
        else:
            del of[lease]
            leases[lender] = {name: refs for name, refs in leases[lender].items() if name != lease}
        moved.add(lender)
    taken = {**known.taken, **{lender: _NOTHING.union(*leases[lender].values()) for lender in moved}}
    return replace(known, leases=leases, taken=taken, lender_of=of), moved


def _stalls(
    known: Mapping[str, Stall],
    shown: Mapping[str, Shown],
    taken: Mapping[str, frozenset[str]],
    moved: AbstractSet[str],
) -> dict[str, Stall]:
    """Anew for offers that changed and for those of lenders that ``moved``; the others as they are."""
    stalls = {}
    for name, each in shown.items():
        stall = known.get(name)
        if stall is None or stall.shelf.lot is not each.lot or each.lot.cluster in moved:
            stall = Stall.of(Shelf.of(each.lot, taken.get(each.lot.cluster, _NOTHING)))
        stalls[name] = stall
    return stalls


def _lender(ref: str) -> str:
    """A device's reference begins with its cluster."""
    return ref.partition("/")[0]


def kind_key(kind: Kind) -> str:
    """One text per kind: equal kinds, equal keys."""
    return hashlib.sha256(kind.model_dump_json().encode()).hexdigest()[:32]


def lot_of(
    offer_id: str,
    offer: AdvertisedOffer,
    cluster: Cluster,
    *,
    kind: str,
    devices: tuple[tuple[str, str | None], ...],
) -> Lot:
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
        uninterrupted_s=offer.terms.uninterrupted,
        allowed_tenants=None if allowed is None else frozenset(allowed),
        region=offer.place.region or "",
        jurisdiction=offer.place.jurisdiction or "",
        provider=offer.place.provider or "",
        confidential=offer.confidential.declared,
        unit=offer.unit,
        devices=devices,
    )
