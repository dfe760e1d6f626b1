"""What kubelets do, played: a bound pod runs once its claims are its own; a deleted one ends, then is gone.

As with kwok, nothing runs. A pod's containers end at once when asked to, or after ``stops_after_s`` of the cluster
(never later than the pod's grace).
"""

from clusteragent.kube.interface import PODS, RESOURCE_CLAIMS, Obj
from clusteragent.kube.sim.api import Api
from clusteragent.kube.sim.controllers import claim_names, reserved_for
from clusteragent.kube.sim.store import Change, Id, copied, id_of
from clusteragent.kube.sim.work import Work

READY = ("Initialized", "ContainersReady", "Ready")


class Kubelets:
    """The kubelets of all nodes."""

    def __init__(self, api: Api, work: Work, *, stops_after_s: float = 0.0) -> None:
        self._api, self._store, self._work = api, api.store, work
        self.stops_after_s = stops_after_s
        self._waiting: dict[Id, None] = {}
        """Bound pods whose claims are not theirs yet."""

    def on_change(self, change: Change) -> None:
        place = id_of(change.obj)
        if change.kind == RESOURCE_CLAIMS:
            for pod in self._waiting:
                if pod[0] == place[0]:
                    self._work.add(self._look, pod)
        elif change.kind == PODS:
            if change.type == "DELETED":
                self._waiting.pop(place, None)
            elif change.obj["metadata"].get("deletionTimestamp"):
                grace = change.obj["metadata"]["deletionGracePeriodSeconds"]
                self._work.after(min(self.stops_after_s, grace), self._stop, (place, change.obj["metadata"]["uid"]))
            elif change.obj["spec"].get("nodeName"):
                self._work.add(self._look, place)

    def _look(self, place: Id) -> None:
        self._waiting.pop(place, None)
        pod = self._store.get(PODS, *place)
        if pod is None or pod["status"].get("phase") != "Pending" or pod["metadata"].get("deletionTimestamp"):
            return
        claims = [self._store.get(RESOURCE_CLAIMS, place[0], name) if name else None for name in claim_names(pod)]
        if all(claim is not None and reserved_for(claim, pod) for claim in claims):
            self._run(pod)
        else:
            self._waiting[place] = None

    def _run(self, pod: Obj) -> None:
        new = copied(pod)
        kept = [one for one in new["status"].get("conditions") or () if one["type"] not in READY]
        now = self._api.stamp()
        ready = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in READY]
        new["status"] |= {"phase": "Running", "startTime": now, "conditions": [*kept, *ready]}
        self._api.replace(PODS, new, status=True)

    def _stop(self, which: tuple[Id, str]) -> None:
        place, uid = which
        pod = self._store.get(PODS, *place)
        if pod is not None and pod["metadata"]["uid"] == uid:
            self._api.end(PODS, pod)
