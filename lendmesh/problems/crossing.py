"""What a document must keep that no part of it can know alone: ids that are there once, limits that can be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from broker.kit.durations import format_duration
from lendmesh.problems.asking import Request
from lendmesh.problems.document import Document, Only
from lendmesh.problems.mistakes import nearest
from lendmesh.problems.offering import Offer
from lendmesh.problems.text import Path

Mistake = tuple[Path, str]


def crossed(document: Document) -> Iterator[Mistake]:
    """Every mistake that takes two parts of the document to see."""
    yield from _twice("offers", [offer.id for offer in document.offers])
    yield from _twice("requests", [request.id for request in document.requests])
    yield from _twice("budgets", [budget.id for budget in document.budgets])
    yield from _twice("quotas", [quota.id for quota in document.quotas])
    yield from _twice("shared", [shared.id for shared in document.shared])
    yield from _twice("shares", [share.tenant for share in document.shares], what="tenant")
    known = _Known(document)
    for at, offer in enumerate(document.offers):
        yield from _changes(("offers", at), offer)
    for at, request in enumerate(document.requests):
        yield from _request(("requests", at), request, known)
    for at, quota in enumerate(document.quotas):
        yield from _unknown(("quotas", at, "tenants"), "request of tenant", quota.tenants, known.tenants)
        if quota.only is not None:
            yield from _unknown(("quotas", at, "only", "offers"), "offer", quota.only.offers or (), known.offers)
            if not any(covers(quota.only, offer) for offer in document.offers):
                yield ("quotas", at, "only"), "no offer is like this, so the quota would limit nothing"
    for at, budget in enumerate(document.budgets):
        yield from _unknown(("budgets", at, "tenants"), "request of tenant", budget.tenants, known.tenants)
    for at, shared in enumerate(document.shared):
        yield from _unknown(("shared", at, "offers"), "offer", shared.offers, known.offers)


class _Known:
    """What a document has, worked out once."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.offers = {offer.id: offer for offer in document.offers}
        self.budgets = {budget.id for budget in document.budgets}
        self.quotas = {quota.id for quota in document.quotas}
        self.tenants = {request.tenant for request in document.requests}
        self._regions = sorted({offer.region for offer in document.offers if offer.region})
        self._unpriced: dict[str, str | None] = {}

    def unpriced(self, origin: str) -> str | None:
        """A region to which nobody says what bringing data costs."""
        if origin not in self._unpriced:
            missing = (each for each in self._regions if per_gigabyte(self.document, origin, each) is None)
            self._unpriced[origin] = next(missing, None)
        return self._unpriced[origin]


def covers(only: Only, offer: Offer) -> bool:
    """Whether a quota that is about some offers is about this one."""
    said = (
        (only.offers, offer.id),
        (only.device, offer.device),
        (only.cluster, offer.cluster),
        (only.lender, offer.lender),
        (only.provider, offer.provider),
        (only.region, offer.region),
        (only.jurisdiction, offer.jurisdiction),
    )
    return (only.spot is None or only.spot == offer.spot) and all(
        names is None or value in names for names, value in said
    )


def per_gigabyte(document: Document, origin: str, region: str) -> int | None:
    """µUSD for bringing a gigabyte from one region to another; None where the table does not say."""
    for row in (origin, "default"):
        table = document.egress.get(row, {})
        if region in table:
            return table[region]
    if origin == region:
        return 0
    for row in (origin, "default"):
        table = document.egress.get(row, {})
        if "default" in table:
            return table["default"]
    return None


def _twice(sort: str, ids: Sequence[str], what: str = "id") -> Iterator[Mistake]:
    many = Counter(ids)
    seen: set[str] = set()
    for at, name in enumerate(ids):
        if many[name] > 1 and name in seen:
            yield (sort, at, what), f"{name!r} is there already (at {sort}[{ids.index(name)}]); each has its own {what}"
        seen.add(name)


def _unknown(path: Path, sort: str, names: Iterable[str], there: Iterable[str]) -> Iterator[Mistake]:
    known = there if isinstance(there, set | dict) else set(there)
    for name in names:
        if name not in known:
            yield path, f"there is no {sort} {name!r}{nearest(name, known)}"


def _changes(path: Path, offer: Offer) -> Iterator[Mistake]:
    free, on_node = offer.units, dict(enumerate(offer.nodes))
    for at, change in sorted(enumerate(offer.later), key=lambda each: each[1].in_):
        where = (*path, "later", at)
        if change.in_ == 0:
            yield (*where, "in"), "a later change is not now; change the count instead"
        if offer.nodes and (change.node is None or change.node >= len(offer.nodes)):
            yield where, f"names no node of the offer; write `node:` with 0 to {len(offer.nodes) - 1}"
            continue
        free += change.units
        if change.node is not None and offer.nodes:
            on_node[change.node] += change.units
            if on_node[change.node] < 0:
                yield where, f"leaves fewer than no units on node {change.node}"
        if free < 0:
            yield where, f"takes more than the offer has: {free} units would be left"
    last = 0
    for at, price in enumerate(offer.prices):
        if price.from_ <= last:
            yield (*path, "prices", at, "from"), "prices are in the order in which they begin, the first later than now"
        last = price.from_


def _request(path: Path, request: Request, known: _Known) -> Iterator[Mistake]:
    yield from _unknown((*path, "budgets"), "budget", request.budgets, known.budgets)
    yield from _unknown((*path, "quotas"), "quota", request.quotas, known.quotas)
    yield from _unknown((*path, "avoid"), "offer", request.avoid, known.offers)
    for at, tier in enumerate(request.tiers):
        yield from _unknown((*path, "tiers", at, "offers"), "offer", tier.offers or (), known.offers)
    if known.document.aim == "welfare" and request.value is None:
        yield path, "says no `value`, which every request needs with `aim: welfare`"
    if request.data is not None and (region := known.unpriced(request.data.region)) is not None:
        what = f"a GB from {request.data.region!r} to {region!r}"
        yield (*path, "data"), f"`egress` does not say what {what} costs; add it, or a `default`"
    if request.running is not None:
        yield from _runs((*path, "running"), request, known.offers)
    else:
        yield from _window(path, request, known.document.starts)


def _window(path: Path, request: Request, starts: Sequence[int]) -> Iterator[Mistake]:
    latest = request.not_before if request.start_by is None else request.start_by
    if not any(request.not_before <= start <= latest for start in starts):
        wanted = "at" if latest == request.not_before else f"by {format_duration(latest)}, not before"
        listed = ", ".join(format_duration(start) for start in starts[:12])
        yield (
            path,
            f"may start {wanted} {format_duration(request.not_before)}, which is none of the document's `starts`: "
            f"{listed}; add one there",
        )


def _runs(path: Path, request: Request, offers: dict[str, Offer]) -> Iterator[Mistake]:
    assert request.running is not None
    for at, held in enumerate(request.running.on):
        where = (*path, "on", at)
        if held.offer not in offers:
            yield from _unknown(where, "offer", [held.offer], offers)
            continue
        nodes = offers[held.offer].nodes
        if request.same_node and len(held.nodes) != held.workers:
            yield where, "the request wants `same_node`; say with `nodes` on which node each worker is"
        if any(not 0 <= node < len(nodes) for node in held.nodes):
            yield where, f"names a node that offer {held.offer!r} does not have; it has {len(nodes)}"
    if request.not_before:
        yield (*path[:-1], "not_before"), "a lease that runs already starts now; leave it out"
