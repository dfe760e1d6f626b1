"""From rows to what the wire says. Parsed JSON of things that never change is kept, so that a view costs little."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

from broker.domain.cluster import Cluster
from broker.domain.credentials import JoinToken, Token
from broker.domain.lease import Lease, State
from broker.domain.request import DONE, Request, RequestState
from broker.kit.kept import Kept
from broker.service.market import Shown, Snapshot
from broker.wire import requests as wire
from broker.wire.access import JoinTokenView, Scope, TokenView
from broker.wire.agents import ClusterView
from broker.wire.base import Money, price
from broker.wire.leases import DesiredLease, Ending, LeaseBody, LeaseState, LeaseView, Mirror
from broker.wire.offers import InventoryCounts, OfferView
from broker.wire.requests import CapacityRequest, PlacementView, Reason, RequestView, Step

_bodies: Kept[str, LeaseBody] = Kept(512)
"""Parsed bodies by their text; a text never means anything else. Those of leases that are being made are looked at
several times within a second; 12 kB each."""

_requests: Kept[str, CapacityRequest] = Kept(2_048)
_placements: Kept[str, PlacementView] = Kept(1_024)


def lease_body(text: str) -> LeaseBody:
    known = _bodies.get(text)
    return remember(text, LeaseBody.model_validate_json(text)) if known is None else known


def remember(text: str, body: LeaseBody) -> LeaseBody:
    """Whoever has just made a body and its text need not have it parsed again."""
    _bodies.keep(text, body)
    return body


def capacity_request(text: str) -> CapacityRequest:
    known = _requests.get(text)
    return remember_request(text, CapacityRequest.model_validate_json(text)) if known is None else known


def remember_request(text: str, body: CapacityRequest) -> CapacityRequest:
    _requests.keep(text, body)
    return body


def _placement(text: str) -> PlacementView:
    known = _placements.get(text)
    if known is None:
        known = PlacementView.model_validate_json(text)
        remember_placement(text, known)
    return known


def remember_placement(text: str, view: PlacementView) -> str:
    _placements.keep(text, view)
    return text


@lru_cache(maxsize=1_024)
def public_jwk(text: str) -> dict[str, Any]:
    key: dict[str, Any] = json.loads(text)
    return key


def lease_view(lease: Lease) -> LeaseView:
    body = lease_body(lease.body)
    return LeaseView.model_construct(
        id=lease.id,
        request=lease.request,
        state=LeaseState(lease.state.value),
        generation=lease.generation,
        revision=lease.revision,
        lender=lease.lender,
        borrower=lease.borrower,
        tenant=lease.tenant,
        lender_tenant=lease.lender_tenant,
        kind=body.kind,
        devices=list(body.devices),
        price=price(lease.price_micros),
        cost=Money.of(lease.cost_micros),
        transfer=Money.of(lease.transfer_micros) if lease.transfer_micros else None,
        terms=body.terms,
        place=body.place,
        confidential=body.confidential,
        policy=lease.policy,
        created_at=lease.created_at,
        active_at=lease.active_at,
        expires_at=lease.expires_at,
        ended_at=lease.ended_at,
        ending=None if lease.ending is None else Ending(lease.ending.value),
        message=lease.message,
        mirrored=Mirror(lender=lease.lender_mirrored, borrower=lease.borrower_mirrored),
        token=lease.token,
    )


def request_view(request: Request, lease: Lease | None, *, solving: bool = False) -> RequestView:
    return RequestView.model_construct(
        id=request.id,
        tenant=request.tenant,
        cluster=request.cluster,
        state=wire.RequestState(request.state.value),
        step=_step(request, lease, solving=solving),
        request=capacity_request(request.body),
        created_at=request.created_at,
        updated_at=request.updated_at,
        revision=max(request.revision, 0 if lease is None else lease.revision),
        lease=request.lease,
        placement=None if request.placement is None else _placement(request.placement),
        reasons=[Reason.model_validate(reason) for reason in json.loads(request.reasons)],
        attempts=request.attempts,
        message=request.message,
    )


def _step(request: Request, lease: Lease | None, *, solving: bool) -> Step:
    if request.state in DONE:
        return Step.ENDED
    if request.state is RequestState.OPEN or lease is None:
        return Step.SOLVING if solving else Step.QUEUED
    match lease.state:
        case State.RESERVED | State.PENDING:
            return Step.RESERVED
        case State.PREPARED:
            return Step.HELD
        case State.ACTIVE | State.ORPHANED:
            return Step.MIRRORED if lease.lender_mirrored and lease.borrower_mirrored else Step.ACTIVE
        case _:
            return Step.ENDED


def offer_view(shown: Shown, snapshot: Snapshot) -> OfferView:
    cluster = snapshot.clusters[shown.lot.cluster]
    shelf = snapshot.shelf(shown.row.id)
    return OfferView.model_construct(
        id=shown.row.id,
        cluster=cluster.name,
        name=shown.offer.name,
        kind=shown.offer.kind,
        price=shown.offer.price,
        terms=shown.offer.terms,
        place=shown.offer.place,
        confidential=shown.offer.confidential,
        unit=shown.offer.unit,
        devices=shelf.free(),
        largest_node=shelf.largest(),
        valid_until=cluster.valid_until or shown.row.updated_at,
        updated_at=shown.row.updated_at,
        stale=not cluster.lends(snapshot.at),
    )


def desired_lease(lease: Lease, *, role: str, borrower: Cluster | None, now: datetime) -> DesiredLease:
    """What ``role`` is asked to make so; ``borrower`` is the cluster whose key credentials are sealed to."""
    lender = role == "lender"
    return DesiredLease.model_construct(
        id=lease.id,
        role=role,
        want=_want(lease, lender=lender, now=now),
        generation=lease.generation,
        revision=lease.revision,
        lease=lease_body(lease.body),
        workload_namespace=lease.workload_namespace,
        hold_until=lease.hold_until if lender and lease.state in (State.RESERVED, State.PREPARED) else None,
        drain_from=lease.drain_from,
        ending=None if lease.ending is None else Ending(lease.ending.value),
        token=lease.token,
        peer_sealing_key=public_jwk(borrower.sealing_key) if lender and borrower is not None else None,
        sealed_credential=None if lender else lease.sealed_credential,
        credential_serial=lease.credential_serial,
    )


def _want(lease: Lease, *, lender: bool, now: datetime) -> str:
    match lease.state:
        case State.RESERVED | State.PREPARED if lender:
            return "held"
        case State.ACTIVE:
            return "lent"
        case State.ORPHANED if lease.draining_at is None and lease.expires_at is not None and now < lease.expires_at:
            return "lent"
        case _:
            return "gone"


def cluster_view(cluster: Cluster, *, offers: int, lends: int, borrows: int) -> ClusterView:
    counts = InventoryCounts.model_validate_json(cluster.counts)
    devices = counts.model_dump(exclude={"excluded"}) if cluster.counts != "{}" else {}
    return ClusterView.model_construct(
        name=cluster.name,
        tenant=cluster.tenant,
        state=cluster.state,
        message=cluster.why,
        joined_at=cluster.joined_at,
        last_seen_at=cluster.last_seen_at,
        clock_offset_ms=cluster.clock_offset_ms,
        version=cluster.version,
        offers=offers,
        devices=devices,
        excluded=[{"reason": each.reason, "devices": each.devices} for each in counts.excluded],
        lends=lends,
        borrows=borrows,
    )


def token_view(token: Token) -> dict[str, Any]:
    """Fields of a ``TokenView``; one with the secret has one more."""
    return TokenView(
        id=token.id,
        name=token.name,
        tenant=token.tenant,
        scopes=[Scope(scope) for scope in token.scopes.split()],
        created_at=token.created_at,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
    ).model_dump()


def join_token_view(token: JoinToken) -> dict[str, Any]:
    """Fields of a ``JoinTokenView``."""
    return JoinTokenView(
        id=token.id,
        cluster=token.cluster,
        tenant=token.tenant,
        created_at=token.created_at,
        expires_at=token.expires_at,
        used_at=token.used_at,
    ).model_dump()
