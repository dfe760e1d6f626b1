"""What the scheduler knows of devices: slices read into pools, classes, and what claims have taken.

The seam to ``broker.dra``: objects go in as they change, the allocator's nouns come out, read once per change.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from broker.dra import normalise, pools
from broker.dra.allocator import Unsatisfiable, allocate, taken_by
from broker.dra.model import Allocated, Claim, DeviceClass, Node, Slice, Taint
from clusteragent.kube.interface import DEVICE_CLASSES, DEVICE_TAINT_RULES, RESOURCE_CLAIMS, RESOURCE_SLICES, Obj
from clusteragent.kube.sim.store import Change, Id, id_of


class Devices:
    """The devices of a cluster, as far as allocating them goes."""

    def __init__(self) -> None:
        self._slices: dict[str, Slice] = {}
        self._rules: dict[str, Obj] = {}
        self._classes: dict[str, DeviceClass] = {}
        self._allocated: dict[Id, Claim] = {}
        self._pools: Collection[Any] | None = None
        self._taken: Allocated | None = None

    def on_change(self, change: Change) -> None:
        obj, gone = change.obj, change.type == "DELETED"
        name = obj["metadata"]["name"]
        if change.kind == RESOURCE_SLICES:
            self._slices.pop(name, None)
            if not gone:
                self._slices[name] = normalise.read_slice(obj)
            self._pools = None
        elif change.kind == DEVICE_TAINT_RULES:
            self._rules.pop(name, None)
            if not gone:
                self._rules[name] = obj
            self._pools = None
        elif change.kind == DEVICE_CLASSES:
            self._classes.pop(name, None)
            if not gone:
                self._classes[name] = normalise.read_class(obj)
        elif change.kind == RESOURCE_CLAIMS:
            self._note_claim(obj, gone=gone)

    def allocate(self, claims: Sequence[Obj], node: Node) -> list[dict[str, Any]] | None:
        """``status.allocation`` for each of the claims, all usable on the node, or None."""
        if not claims:
            return []
        if self._pools is None:
            self._pools = pools.assemble(self._tainted(one) for one in self._slices.values()).values()
        if self._taken is None:
            self._taken = taken_by(self._allocated.values())
        answer = allocate(
            claims=[normalise.read_claim(claim) for claim in claims],
            node=node,
            pools=self._pools,
            allocated=self._taken,
            classes=self._classes,
        )
        return None if isinstance(answer, Unsatisfiable) else [one.to_raw() for one in answer]

    def _note_claim(self, claim: Obj, *, gone: bool) -> None:
        place = id_of(claim)
        had = self._allocated.pop(place, None)
        if not gone and (claim.get("status") or {}).get("allocation"):
            # The allocation of a claim never changes, except to nothing.
            self._allocated[place] = had if had and had.uid == claim["metadata"]["uid"] else normalise.read_claim(claim)
        if self._allocated.get(place) is not had:
            self._taken = None

    def _tainted(self, published: Slice) -> Slice:
        """The slice with the taints that DeviceTaintRules add (KEP-5055)."""
        devices = tuple(
            replace(device, taints=device.taints + added, cache={}) if (added := self._added(device.id)) else device
            for device in published.devices
        )
        return published if devices == published.devices else replace(published, devices=devices)

    def _added(self, device: tuple[str, str, str]) -> tuple[Taint, ...]:
        taints = []
        for rule in self._rules.values():
            wanted = rule["spec"].get("deviceSelector") or {}
            if all(
                wanted.get(key) in (None, value)
                for key, value in zip(("driver", "pool", "device"), device, strict=True)
            ):
                taint = rule["spec"]["taint"]
                taints.append(Taint(taint["key"], taint.get("value", ""), taint["effect"]))
        return tuple(taints)
