"""What can be seen of one lease in its cluster, put together for a plan: from the shared cache and the inventory."""

from collections.abc import Callable

from broker.wire.leases import LeaseBody
from clusteragent import borrow, holding, lender, record
from clusteragent.cache import Cache
from clusteragent.fences import Fences
from clusteragent.kube.interface import DEVICE_LEASES, NAMESPACES, NODES, PODS, RESOURCE_CLAIMS, Obj
from clusteragent.lender import Wish
from clusteragent.observe import Observer


class Eyes:
    """Looks at leases. ``forbids`` says why the owner's policies don't allow one."""

    def __init__(
        self, *, cache: Cache, observer: Observer, fences: Fences, forbids: Callable[[LeaseBody], str | None]
    ) -> None:
        self._cache, self._observer, self._fences, self._forbids = cache, observer, fences, forbids
        self._records = record.Records()

    def kept(self, lease: str, namespace: str) -> record.Record | None:
        """The DeviceLease of a lease, read."""
        obj = self._cache[DEVICE_LEASES].get(lease, namespace)
        return None if obj is None else self._records.of(obj)

    def forget(self, obj: Obj) -> None:
        """A DeviceLease has gone."""
        self._records.forget(obj)

    def engaged(self, lease: str, wish: Wish | None, *, ending: bool) -> set[str]:
        """The devices (``driver/pool/name``) that are not to be offered because of this lease."""
        namespace = holding.namespace_of(lease)
        kept = self.kept(lease, namespace)
        body = wish.desired.lease if wish is not None else kept.body if kept is not None else None
        gone = ending or (wish is not None and wish.desired.want == "gone")
        there = self._cache[RESOURCE_CLAIMS].within(namespace) or self._cache[PODS].within(namespace)
        if body is None or (gone and not there):
            return set()
        return {f"{device.driver}/{device.pool}/{device.name}" for device in body.devices}

    def lending(self, lease: str, wish: Wish | None, *, heard: bool) -> lender.View:
        """The lender's side."""
        namespace = holding.namespace_of(lease)
        raw, kept = self._cache[DEVICE_LEASES].get(lease, namespace), self.kept(lease, namespace)
        claims = self._cache[RESOURCE_CLAIMS].within(namespace)
        devices = wish.desired.lease.devices if wish is not None else ()
        asking = wish is not None and wish.desired.want == "held"
        new = asking and raw is None and not claims
        unfree: dict[str, str] = {}
        missing: dict[str, str] = {}
        if asking and self._observer.settled:
            for device in devices:
                state = self._observer.state(device)
                ours = state is not None and (state.claim or "").startswith(f"{namespace}/")
                if not ours and (obstacle := self._observer.unfree(device)) is not None:
                    why, passing = obstacle
                    (missing if passing else unfree)[holding.ref(device)] = why
        return lender.View(
            lease=lease,
            wish=wish,
            heard=heard,
            namespace=self._cache[NAMESPACES].get(namespace),
            record=kept,
            claims=claims,
            pods=self._cache[PODS].within(namespace),
            nodes={device.node: node for device in devices if device.node and (node := self._node(device.node))},
            unfree=unfree,
            missing=missing,
            pins=self._observer.pins(devices) if asking else {},
            forbidden=(self._forbids(wish.desired.lease) or "") if wish is not None and new else "",
            stale=self._fences.lower({holding.ref(device): device.fence for device in devices}) or "",
            unreadable=raw is not None and kept is None,
        )

    def _node(self, name: str) -> Obj | None:
        return self._cache[NODES].get(name)

    def borrowing(self, lease: str, wish: Wish | None, *, heard: bool, place: str | None) -> borrow.View:
        """The borrower's side; ``place`` is where something of it was seen."""
        namespace = place or (wish.desired.workload_namespace if wish else "")
        raw, kept = self._cache[DEVICE_LEASES].get(lease, namespace), self.kept(lease, namespace)
        claims = {
            name: claim
            for name, claim in self._cache[RESOURCE_CLAIMS].within(namespace).items()
            if name.startswith(lease) and holding.lease_of(claim) == lease and record.role_of(claim) == "borrower"
        }
        return borrow.View(
            lease=lease,
            wish=wish,
            heard=heard,
            namespace=namespace,
            record=kept,
            claims=claims,
            unreadable=raw is not None and kept is None,
        )
