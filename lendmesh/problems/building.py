"""From a file's text to the optimizer's problem."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from lendmesh.problems.asking import Data, Request
from lendmesh.problems.crossing import covers, crossed, per_gigabyte
from lendmesh.problems.document import Budget, Document, Quota, loaded
from lendmesh.problems.mistakes import BadDocument, of_shape, told
from lendmesh.problems.offering import Offer
from lendmesh.problems.text import Unreadable, read
from optimizer import problem as ask_for
from optimizer.ranges import MAX_DURATION, BadProblem


def understand(text: str) -> ask_for.Problem:
    """The problem that a text poses.

    :raises BadDocument: it poses none; its lines say why.
    """
    try:
        value = read(text)
    except Unreadable as unreadable:
        raise BadDocument([str(unreadable)]) from None
    if not isinstance(value, dict):
        raise BadDocument(
            ["it must hold a mapping with `offers:` and `requests:`; `lendmesh solve --example` shows one"]
        )
    try:
        document = loaded(value)
    except ValidationError as error:
        raise told(of_shape(error), text=text, value=value) from None
    if wrong := list(crossed(document)):
        raise told(wrong, text=text, value=value)
    try:
        return build(document)
    except BadProblem as bad:
        raise BadDocument([str(bad)]) from None


def build(document: Document) -> ask_for.Problem:
    """The optimizer's problem. :raises BadProblem: as a whole it is too large, or contradicts itself."""
    index = _Index(document)
    return ask_for.Problem(
        groups=tuple(_group(offer) for offer in document.offers),
        asks=tuple(_ask(request, document, index) for request in document.requests),
        budgets=tuple(
            ask_for.Budget(id=each.id, remaining_micros=each.remaining, from_s=each.from_, until_s=each.until)
            for each in document.budgets
        ),
        quotas=tuple(
            ask_for.Quota(
                id=each.id,
                remaining_devices=each.devices,
                groups=None
                if each.only is None
                else frozenset(offer.id for offer in document.offers if covers(each.only, offer)),
                from_s=each.from_,
                until_s=each.until,
            )
            for each in document.quotas
        ),
        rows=tuple(
            ask_for.CapacityRow(id=each.id, limit=each.limit, members=dict(each.offers)) for each in document.shared
        ),
        shares=tuple(
            ask_for.Share(
                tenant=each.tenant, guaranteed=each.guaranteed, weight=each.weight, history_milli=each.history
            )
            for each in document.shares
        ),
        starts=document.starts,
        aim=ask_for.Aim(document.aim),
    )


class _Index:
    """What many requests ask of a document, worked out once: twenty thousand of them share a few answers."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._kinds: dict[tuple[str, ...], frozenset[str]] = {}
        self._rates: dict[str, dict[str, int]] = {}
        self._regions = sorted({offer.region for offer in document.offers if offer.region})

    def of_kind(self, kinds: tuple[str, ...] | None) -> frozenset[str] | None:
        """Offers of these kinds; None is all."""
        if kinds is None:
            return None
        if kinds not in self._kinds:
            self._kinds[kinds] = frozenset(offer.id for offer in self._document.offers if offer.device in kinds)
        return self._kinds[kinds]

    def transfers(self, data: Data | None) -> dict[str, int]:
        """Region → µUSD of bringing the data there; where it is free, the region is left out."""
        if data is None:
            return {}
        if data.region not in self._rates:
            rates = {region: per_gigabyte(self._document, data.region, region) for region in self._regions}
            self._rates[data.region] = {region: rate for region, rate in rates.items() if rate}
        many, whole = data.gb.as_integer_ratio()
        return {region: -(-rate * many // whole) for region, rate in self._rates[data.region].items() if many}


def _group(offer: Offer) -> ask_for.Group:
    return ask_for.Group(
        id=offer.id,
        cluster=offer.cluster,
        kind=offer.device,
        price_micros=offer.price,
        count=offer.units,
        unit=offer.unit,
        region=offer.region,
        jurisdiction=offer.jurisdiction,
        provider=offer.provider,
        domain=offer.domain,
        min_duration_s=offer.min_duration,
        max_duration_s=MAX_DURATION if offer.max_duration is None else offer.max_duration,
        confidential=offer.confidential,
        uninterrupted_s=(offer.uninterrupted or 0) if offer.spot else None,
        reclaims=offer.reclaims,
        lender_tenant=offer.lender,
        allowed_tenants=_set(offer.tenants),
        per_node=offer.nodes,
        later=tuple(ask_for.Later(at_s=each.in_, units=each.units, node=each.node) for each in offer.later),
        prices=tuple((each.from_, each.price) for each in offer.prices),
    )


def _ask(request: Request, document: Document, index: _Index) -> ask_for.Ask:
    return ask_for.Ask(
        id=request.id,
        tenant=request.tenant,
        cluster=request.cluster,
        devices=request.devices,
        workers=request.workers,
        duration_s=request.duration,
        matched=index.of_kind(request.device),
        forms=tuple(
            ask_for.Form(
                matched=index.of_kind(form.device),
                devices=form.devices or request.devices,
                workers=form.workers or request.workers,
                speed_milli=form.speed,
            )
            for form in request.or_
        ),
        split=request.split,
        avoid=frozenset(request.avoid),
        price_cap_micros=request.price_cap,
        total_cap_micros=request.total_cap,
        transfer_micros=index.transfers(request.data),
        clusters=_set(request.clusters),
        regions=_set(request.regions),
        jurisdictions=_set(request.jurisdictions),
        providers=_set(request.providers),
        confidential=ask_for.Confidential(request.confidential),
        uninterrupted=not request.spot,
        restart_micros=request.restart_cost,
        tiers=tuple(
            ask_for.Tier(
                name=tier.name,
                price_cap_micros=tier.price_cap,
                clusters=_set(tier.clusters),
                providers=_set(tier.providers),
                regions=_set(tier.regions),
                jurisdictions=_set(tier.jurisdictions),
                groups=_set(tier.offers),
            )
            for tier in request.tiers
        ),
        same_node=request.same_node,
        not_before_s=request.not_before,
        start_by_s=request.start_by,
        end_by_s=request.deadline,
        delay_micros=request.delay_cost_per_hour,
        running=_running(request),
        budgets=_drawn(request.budgets, request, document.budgets),
        quotas=_drawn(request.quotas, request, document.quotas),
        priority=request.priority,
        created=request.turn,
        weight=request.weight,
        value_micros=request.value,
    )


def _running(request: Request) -> ask_for.Running | None:
    if request.running is None:
        return None
    return ask_for.Running(
        held=tuple(
            ask_for.Held(group=each.offer, workers=each.workers, nodes=each.nodes) for each in request.running.on
        ),
        move_micros=request.running.move_cost,
        end_micros=request.running.end_cost,
    )


def _drawn(named: Iterable[str], request: Request, limits: Sequence[Budget] | Sequence[Quota]) -> tuple[str, ...]:
    """The limits that a request names, then those that are for all requests of its tenant."""
    found = dict.fromkeys(named)
    found |= dict.fromkeys(limit.id for limit in limits if request.tenant in limit.tenants)
    return tuple(found)


def _set(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
