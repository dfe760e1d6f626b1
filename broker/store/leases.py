"""Statements about leases and the devices in them: among these, the insert that lets the constraint decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, and_, bindparam, func, insert, or_, select, update

from broker.domain.errors import StaleVersion
from broker.domain.lease import LIVE, Ending, Lease, State
from broker.domain.rules import Rules
from broker.store.tables import holds, lease_devices, leases

if TYPE_CHECKING:
    from broker.store.unit import Unit

_MOVING = (
    "generation",
    "revision",
    "hold_until",
    "active_at",
    "expires_at",
    "drain_from",
    "draining_at",
    "ended_at",
    "message",
    "token",
    "sealed_credential",
    "credential_serial",
    "lender_open",
    "borrower_open",
    "lender_mirrored",
    "borrower_mirrored",
)
_FIXED = (
    "id",
    "request",
    "offer",
    "lender",
    "borrower",
    "tenant",
    "lender_tenant",
    "policy",
    "devices",
    "price_micros",
    "transfer_micros",
    "duration_s",
    "max_duration_s",
    "reclaim_notice_s",
    "minimum_runtime_s",
    "body",
    "workload_namespace",
    "created_at",
    "fence",
)
_READ = select(*(leases.c[name] for name in (*_FIXED, *_MOVING, "state", "ending")))
_BY_ID = _READ.where(leases.c.id.in_(bindparam("ids", expanding=True))).order_by(leases.c.id)
_ADD = insert(leases)
_ADD_DEVICES = insert(lease_devices)
_SAVE = (
    update(leases)
    .where(
        leases.c.id == bindparam("key"),
        leases.c.state == bindparam("was_state"),
        leases.c.generation == bindparam("was_generation"),
        leases.c.revision == bindparam("was_revision"),
    )
    .values({name: bindparam(name) for name in (*_MOVING, "state", "ending", "due_at", "cost_micros")})
)
_FREE = update(lease_devices).where(lease_devices.c.lease == bindparam("key")).values(live=False)
_LIVE_REFS = select(lease_devices.c.ref).where(holds(lease_devices.c.live))
_LIVE_DEVICES = select(lease_devices.c.lease, lease_devices.c.ref).where(holds(lease_devices.c.live))
_LIVE_AMONG = _LIVE_DEVICES.where(lease_devices.c.lease.in_(bindparam("ids", expanding=True)))
_REFS = select(lease_devices.c.ref).where(lease_devices.c.lease == bindparam("i")).order_by(lease_devices.c.ref)
_OPEN_FOR = _READ.where(
    or_(
        and_(leases.c.lender == bindparam("c"), holds(leases.c.lender_open)),
        and_(leases.c.borrower == bindparam("c"), holds(leases.c.borrower_open)),
    )
).order_by(leases.c.id)
_DUE = _READ.where(leases.c.due_at <= bindparam("now")).order_by(leases.c.due_at, leases.c.id).limit(bindparam("most"))
_POSTPONE = update(leases).where(leases.c.id == bindparam("key")).values(due_at=bindparam("new_due"))
_NEXT_DUE = select(func.min(leases.c.due_at)).where(leases.c.due_at.is_not(None))
# A live lease's lender_open is true: so its index leads to the few that live among all that ever were.
_OF_LENDER = _READ.where(
    leases.c.lender == bindparam("c"),
    holds(leases.c.lender_open),
    leases.c.state.in_(bindparam("states", expanding=True)),
).order_by(leases.c.id)
_LIVE_OF = _READ.where(
    or_(leases.c.lender == bindparam("c"), leases.c.borrower == bindparam("c")),
    holds(leases.c.lender_open),
    leases.c.state.in_(sorted(state.value for state in LIVE)),
).order_by(leases.c.id)
_SPENT = select(func.coalesce(func.sum(leases.c.cost_micros), 0)).where(
    leases.c.borrower == bindparam("c"), leases.c.policy == bindparam("p"), leases.c.month == bindparam("m")
)
_SPENT_ALL = (
    select(leases.c.borrower, leases.c.policy, func.sum(leases.c.cost_micros))
    .where(leases.c.policy.is_not(None), leases.c.month == bindparam("m"))
    .group_by(leases.c.borrower, leases.c.policy)
)
_LIVE_OF_POLICY = select(func.count()).where(
    leases.c.borrower == bindparam("c"),
    leases.c.policy == bindparam("p"),
    leases.c.state.in_(sorted(state.value for state in LIVE)),
)
_COUNTS = (
    select(leases.c.lender, leases.c.borrower, func.count())
    .where(holds(leases.c.lender_open), leases.c.state.in_(sorted(state.value for state in LIVE)))
    .group_by(leases.c.lender, leases.c.borrower)
)
_BY_STATE = select(leases.c.state, func.count()).group_by(leases.c.state)


class Leases:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def find(self, lease_id: str) -> Lease | None:
        row = self._unit.ask(_BY_ID, {"ids": [lease_id]}).one_or_none()
        return None if row is None else _lease(row)

    def by_id(self, ids: Iterable[str]) -> list[Lease]:
        wanted = list(ids)
        found: list[Lease] = []
        for start in range(0, len(wanted), 500):
            found += [_lease(row) for row in self._unit.ask(_BY_ID, {"ids": wanted[start : start + 500]}).all()]
        return found

    def page(
        self,
        *,
        tenant: str | None,
        cluster: str | None,
        state: str | None,
        before: str | None,
        limit: int,
    ) -> list[Lease]:
        """Newest first; of a tenant or a cluster on either side."""
        query = _READ.order_by(leases.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(or_(leases.c.tenant == tenant, leases.c.lender_tenant == tenant))
        if cluster is not None:
            query = query.where(or_(leases.c.lender == cluster, leases.c.borrower == cluster))
        if state is not None:
            query = query.where(leases.c.state == state)
        if before is not None:
            query = query.where(leases.c.id < before)
        return [_lease(row) for row in self._unit.ask(query)]

    def reserve(self, new: Sequence[tuple[Lease, Sequence[str]]], rules: Rules) -> None:
        """(lease, device references): write them all, or raise ``DeviceTaken`` because one is in a live lease.

        Nothing is looked up first: between a look and an insert another writer fits. Devices go in sorted order, so
        that two writers which want the same ones queue instead of deadlocking.
        """
        self._unit.change(_ADD, [_row(lease, rules) for lease, _ in new])
        devices = sorted((ref, lease.id, lease.fence) for lease, refs in new for ref in refs)
        self._unit.change_plainly(
            _ADD_DEVICES,
            [{"ref": ref, "lease": lease_id, "fence": fence, "live": True} for ref, lease_id, fence in devices],
        )
        self._unit.saved += [lease for lease, _ in new]

    def save(self, changes: Sequence[tuple[Lease, Lease]], rules: Rules) -> None:
        """(before, after): compare-and-set on state, generation and revision; ``StaleVersion`` where one is stale.

        Devices of a lease that has ended become free in the same transaction.
        """
        if not changes:
            return
        rows = [
            {
                **{name: getattr(after, name) for name in _MOVING},
                **_derived(after, rules),
                "key": before.id,
                "was_state": before.state.value,
                "was_generation": before.generation,
                "was_revision": before.revision,
            }
            for before, after in changes
        ]
        if self._unit.change(_SAVE, rows).rowcount != len(rows):
            raise StaleVersion("lease", changes[0][0].id if len(changes) == 1 else "among several")
        freed = [{"key": before.id} for before, after in changes if before.state in LIVE and after.state not in LIVE]
        if freed:
            self._unit.change(_FREE, freed)
        self._unit.saved += [after for _, after in changes]

    def live_refs(self) -> set[str]:
        """Every device in a live lease. For offers and plans; what is granted is decided by the constraint alone."""
        return set(self._unit.ask(_LIVE_REFS).scalars())

    def live_devices(self, ids: Iterable[str] | None = None) -> dict[str, list[str]]:
        """Live lease → its devices; with ``ids`` only of these, where they live."""
        found: dict[str, list[str]] = {}
        wanted = None if ids is None else list(ids)
        parts: Sequence[list[str] | None] = (
            [None] if wanted is None else [wanted[low : low + 500] for low in range(0, len(wanted), 500)]
        )
        for part in parts:
            rows = self._unit.ask(_LIVE_DEVICES) if part is None else self._unit.ask(_LIVE_AMONG, {"ids": part})
            for lease, ref in rows:
                found.setdefault(lease, []).append(ref)
        return found

    def refs(self, lease_id: str) -> list[str]:
        return list(self._unit.ask(_REFS, {"i": lease_id}).scalars())

    def open_for(self, cluster: str) -> list[Lease]:
        """Those of which the cluster may still have something, in either role."""
        return [_lease(row) for row in self._unit.ask(_OPEN_FOR, {"c": cluster})]

    def due(self, now: datetime, *, most: int) -> list[Lease]:
        return [_lease(row) for row in self._unit.ask(_DUE, {"now": now, "most": most})]

    def postpone(self, lease: Lease, rules: Rules) -> None:
        """Note anew when time will next change it: the rules may have changed since that was noted."""
        self._unit.change(_POSTPONE, {"key": lease.id, "new_due": lease.due_at(rules)})

    def next_due(self) -> datetime | None:
        due: datetime | None = self._unit.ask(_NEXT_DUE).scalar_one()
        return due

    def lent_by(self, cluster: str, states: Iterable[State]) -> list[Lease]:
        values = {"c": cluster, "states": [state.value for state in states]}
        return [_lease(row) for row in self._unit.ask(_OF_LENDER, values)]

    def live_of(self, cluster: str) -> list[Lease]:
        """Every live lease on either side of which the cluster stands."""
        return [_lease(row) for row in self._unit.ask(_LIVE_OF, {"c": cluster})]

    def spent(self, *, cluster: str, policy: str, month: str) -> int:
        """µUSD of one policy in one month: worst case of what lives, actual cost of what has ended."""
        return int(self._unit.ask(_SPENT, {"c": cluster, "p": policy, "m": month}).scalar_one())

    def spent_by_policy(self, month: str) -> Mapping[tuple[str, str], int]:
        return {(row[0], row[1]): int(row[2]) for row in self._unit.ask(_SPENT_ALL, {"m": month})}

    def live_of_policy(self, *, cluster: str, policy: str) -> int:
        return int(self._unit.ask(_LIVE_OF_POLICY, {"c": cluster, "p": policy}).scalar_one())

    def live_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Live leases per lender and per borrower."""
        lends: dict[str, int] = {}
        borrows: dict[str, int] = {}
        for row in self._unit.ask(_COUNTS):
            lends[row[0]] = lends.get(row[0], 0) + row[2]
            borrows[row[1]] = borrows.get(row[1], 0) + row[2]
        return lends, borrows

    def by_state(self) -> dict[str, int]:
        return {row[0]: row[1] for row in self._unit.ask(_BY_STATE)}


def month_of(at: datetime) -> str:
    """The calendar month (UTC) a lease counts in: that of its making."""
    return f"{at:%Y-%m}"


def _derived(lease: Lease, rules: Rules) -> dict[str, Any]:
    return {
        "state": lease.state.value,
        "ending": None if lease.ending is None else lease.ending.value,
        "due_at": lease.due_at(rules),
        "cost_micros": lease.cost_micros,
    }


def _row(lease: Lease, rules: Rules) -> dict[str, Any]:
    row = {name: getattr(lease, name) for name in (*_FIXED, *_MOVING)}
    return {**row, **_derived(lease, rules), "month": month_of(lease.created_at)}


def _lease(row: Row[*tuple[Any, ...]]) -> Lease:
    values = dict(row._mapping)
    values["state"] = State(values["state"])
    values["ending"] = None if values["ending"] is None else Ending(values["ending"])
    return Lease(**values)
