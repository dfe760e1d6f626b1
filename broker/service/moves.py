"""How a lease moves: saved by compare-and-set, logged, signed where it is signed, and its request follows.

Everything that changes a lease comes through ``Moves.move``, so there is one place where a change and what it means for
others meet, inside one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.domain.lease import LIVE, Ending, Lease, State
from broker.domain.request import Request, RequestState
from broker.service.core import Core
from broker.store.unit import Unit
from broker.wire.signing import sign_lease

_ENDS_THE_REQUEST = frozenset({Ending.CANCELLED, Ending.REVOKED, Ending.RETURNED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One lease's change."""

    before: Lease
    after: Lease
    types: Sequence[str]
    """What is logged, in order."""
    failed: frozenset[str] = frozenset()
    """What the request leaves out when it looks again; named, it looks again whatever the ending."""
    data: dict[str, Any] = field(default_factory=dict)


class Moves(Core):
    def move(self, unit: Unit, moves: Sequence[Move], *, by: str) -> list[Lease]:
        """Save them all or raise ``StaleVersion``; the leases as they are now."""
        now = self.now()
        saved: list[tuple[Lease, Lease]] = []
        for move in moves:
            revision = move.before.revision
            for type_ in move.types:
                revision = unit.log.add(
                    type_, at=now, subject=by, data=_details(move), **about(move.after, move.before)
                )
            saved.append((move.before, replace(move.after, revision=revision)))
        unit.leases.save(saved, self.rules)
        self._follow(unit, moves, by=by)
        return [after for _, after in saved]

    def signed(self, lease: Lease) -> Lease:
        """With its token: a JWS over exactly these bytes, decided before and committed with the lease."""
        assert lease.expires_at is not None
        issued = int(self.now().timestamp())
        head = {
            "iss": self.issuer,
            "sub": lease.borrower,
            "aud": [lease.lender, lease.borrower],
            "jti": lease.id,
            "iat": issued,
            "nbf": issued,
            "exp": int(lease.expires_at.timestamp()),
            "generation": lease.generation,
        }
        return replace(lease, token=sign_lease(head, lease.body, self.keys[0]))

    def save_requests(self, unit: Unit, changes: Sequence[tuple[Request, Request]], *, by: str) -> list[Request]:
        """(before, after): logged and saved by compare-and-set."""
        now = self.now()
        saved = []
        for before, after in changes:
            still = after.state is before.state  # of an open one: other reasons, nothing that could make it fit
            revision = unit.log.add(
                "request.waiting" if still else f"request.{after.state.value.lower()}",
                at=now,
                subject=by,
                request=after.id,
                peer=after.cluster,
                tenant=after.tenant,
            )
            saved.append((before, replace(after, revision=revision)))
        unit.requests.save(saved)
        return [after for _, after in saved]

    def _follow(self, unit: Unit, moves: Sequence[Move], *, by: str) -> None:
        """What the leases' changes mean for the requests they were made for."""
        turned = {
            move.after.id: move
            for move in moves
            if move.after.state is not move.before.state
            and move.after.state in (State.ACTIVE, State.DRAINING, State.ENDED)
        }
        changes: list[tuple[Request, Request]] = []
        for request in unit.requests.by_id({move.after.request for move in turned.values()}):
            move = turned.get(request.lease or "")  # not one of a lease that the request has left behind
            changed = None if move is None else self._followed(request, move)
            if changed is not None:
                changes.append((request, changed))
        if changes:
            self.save_requests(unit, changes, by=by)

    def _followed(self, request: Request, move: Move) -> Request | None:
        now, lease = self.now(), move.after
        placed = request.state is RequestState.PLACED
        if lease.state is State.ACTIVE:
            return request.active(now=now) if placed else None
        if placed:
            if lease.ending in _ENDS_THE_REQUEST and not move.failed:
                return request.closed(now=now, message=lease.message)
            text = lease.message or f"Lender {lease.lender} did not hold the devices ({lease.ending})."
            return request.reopened(
                without=move.failed or frozenset({lease.offer}), message=text, most=self.rules.attempts, now=now
            )
        if lease.state is State.ENDED and request.state is RequestState.ACTIVE:
            return request.closed(now=now, message=lease.message or f"The lease ended: {lease.ending}.")
        return None


def about(after: Lease, before: Lease | None = None) -> dict[str, Any]:
    """Whose business a lease is; its offer's too when devices became taken or free by it."""
    turned = (before is not None and before.state in LIVE) != (after.state in LIVE)
    return {
        "lease": after.id,
        "request": after.request,
        "offer": after.offer if turned else None,
        "cluster": after.lender,
        "peer": after.borrower,
        "tenant": after.tenant,
        "peer_tenant": after.lender_tenant,
    }


def _details(move: Move) -> str:
    details = {
        "from": move.before.state.value,
        "to": move.after.state.value,
        "generation": move.after.generation,
        "fence": move.after.fence,
        **move.data,
    }
    if move.after.ending is not None:
        details["ending"] = move.after.ending.value
    if move.after.message:
        details["message"] = move.after.message
    return json.dumps(details)
