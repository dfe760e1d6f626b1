"""A simulated cluster, put together: store, API server, controllers, scheduler, kubelets.

Make one inside a running event loop, add nodes and slices, and hand ``connect()`` to an agent. With the same clock, ids
and order of calls it does the same things: nothing in it is random, and nothing in it looks at a clock of its own.
"""

import hashlib
import itertools
import uuid
from collections.abc import Callable, Iterable

from broker.kit.clock import Clock, utc_now
from clusteragent.kube.interface import NAMESPACES, NODES, RESOURCE_SLICES, SERVICE_ACCOUNTS, Kind, NotFound, Obj
from clusteragent.kube.sim.api import Api
from clusteragent.kube.sim.controllers import Controllers
from clusteragent.kube.sim.kube import SimKube
from clusteragent.kube.sim.kubelet import Kubelets
from clusteragent.kube.sim.scheduler import Scheduler
from clusteragent.kube.sim.store import Store, copied
from clusteragent.kube.sim.work import Later, Work, loop_later


class SimCluster:
    """One simulated cluster. ``later`` runs its timers; the default is the running event loop."""

    def __init__(
        self,
        name: str,
        *,
        now: Clock = utc_now,
        later: Later = loop_later,
        new_uid: Callable[[], str] | None = None,
        pods_stop_after_s: float = 0.0,
    ) -> None:
        self.name = name
        self._later = later
        self._store = Store()
        self._api = Api(self._store, now=now, new_uid=new_uid or counted_uids(name))
        self._work = Work(later)
        self.kubelets = Kubelets(self._api, self._work, stops_after_s=pods_stop_after_s)
        # The order is that in which each hears of a change.
        for part in (Controllers(self._api, self._work), Scheduler(self._api, self._work), self.kubelets):
            self._store.on_change.append(part.on_change)
        self.add_namespaces("default", "kube-system")

    def connect(self) -> SimKube:
        """A connection of its own, with faults of its own. It sees and may do everything."""
        return SimKube(self._api, name=self.name, later=self._later)

    def add_namespaces(self, *names: str) -> None:
        for name in names:
            self._api.create(NAMESPACES, {"metadata": {"name": name}})
            self._api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})

    def add_node(self, name: str, *, labels: dict[str, str] | None = None, taints: Iterable[Obj] = ()) -> Obj:
        """A node that is Ready. A node object with more in it goes through ``put``."""
        return self.put(
            NODES,
            {
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
                "spec": {"taints": copied(list(taints))} if taints else {},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
            },
        )

    def publish(self, slices: Iterable[Obj]) -> None:
        """Publish ResourceSlices as a driver would: created, or put in the place of those of the same name."""
        for one in slices:
            self.put(RESOURCE_SLICES, one)

    def put(self, kind: Kind, obj: Obj) -> Obj:
        """Create an object, or put it in the place of the one of its name, whatever version that has."""
        metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "uid")}
        plain = {**obj, "metadata": metadata}
        try:
            there = self._api.get(kind, metadata["name"], metadata.get("namespace"))
        except NotFound:
            return copied(self._api.create(kind, plain))
        metadata["resourceVersion"] = there["metadata"]["resourceVersion"]
        return copied(self._api.replace(kind, plain))

    def remove(self, kind: Kind, name: str, *, namespace: str | None = None) -> None:
        """Delete an object, as its owner would."""
        self._api.delete(kind, name, namespace=namespace)

    @property
    def settled(self) -> bool:
        """Nothing is waiting to be looked at; what comes next comes from outside, or from a timer."""
        return self._work.idle


def counted_uids(name: str) -> Callable[[], str]:
    """Uids that look like any, never repeat, differ between clusters, and are the same in every run."""
    seed = hashlib.sha256(name.encode()).digest()[:8]
    numbers = itertools.count(1)
    return lambda: str(
        uuid.UUID(bytes=hashlib.sha256(seed + next(numbers).to_bytes(8, "big")).digest()[:16], version=4)
    )
