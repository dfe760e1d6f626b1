"""What the cluster has: the shelves of slices, claims, classes and nodes become one inventory, event by event.

The inventory is the truth about devices (``broker.dra``); here it is only fed and asked. Until every kind has been
listed, and while one is being listed again, the picture is not *settled* and nothing is offered from it.
"""

from collections.abc import Callable

from broker.dra import inventory
from broker.dra.inventory import DeviceState, Inventory
from broker.dra.model import DeviceId
from broker.wire.leases import LeasedDevice
from clusteragent.cache import Cache
from clusteragent.holding import namespace_of, ref
from clusteragent.kube.interface import (
    DEVICE_CLASSES,
    DEVICE_TAINT_RULES,
    NODES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Kind,
    Obj,
)

FED: dict[Kind, str] = {
    RESOURCE_SLICES: inventory.SLICE,
    RESOURCE_CLAIMS: inventory.CLAIM,
    DEVICE_CLASSES: inventory.CLASS,
    NODES: inventory.NODE,
    DEVICE_TAINT_RULES: inventory.TAINT_RULE,
}


class Observer:
    """The inventory of one cluster, kept as its shelves are."""

    def __init__(self, cache: Cache) -> None:
        self.inventory = Inventory()
        self._cache = cache
        self._listeners: list[Callable[[], None]] = []
        for kind, name in FED.items():
            if kind in cache:
                cache[kind].listen(self._feeder(name))

    def listen(self, listener: Callable[[], None]) -> None:
        """Hear that something that may matter to devices has changed."""
        self._listeners.append(listener)

    @property
    def settled(self) -> bool:
        """Every kind is listed and followed: the picture is whole."""
        return all(self._cache[kind].synced.is_set() for kind in FED if kind in self._cache)

    def devices(self) -> list[DeviceState]:
        return self.inventory.devices()

    def state(self, device: LeasedDevice) -> DeviceState | None:
        return self.inventory.device(DeviceId(device.driver, device.pool, device.name))

    def unfree(self, device: LeasedDevice) -> tuple[str, bool] | None:
        """Why this device can't be had now, and whether that may pass by itself in a moment; None when it can be had.

        A kubelet that restarts takes its slices away for a while, and a node misses a heartbeat (facts dra.md §5): only
        a claim that has the device, and other hardware in its place, are the last word.
        """
        state = self.state(device)
        if state is None:
            return "it is not published any more", True
        if device.key and state.key and device.key != state.key:
            return "other hardware has its name now", False
        if state.state != inventory.FREE:
            return state.reason or state.state, state.state != inventory.ALLOCATED
        if state.pin is None:
            return "nothing it publishes tells it from its neighbours", False
        return None

    def pins(self, devices: tuple[LeasedDevice, ...]) -> dict[str, str]:
        """For each device that can be pinned, the CEL that selects it on its node."""
        found = {}
        for device in devices:
            state = self.state(device)
            if state is not None and state.pin is not None:
                found[ref(device)] = state.pin
        return found

    def _feeder(self, kind: str) -> Callable[[Obj, bool], None]:
        def feed(obj: Obj, here: bool) -> None:
            if here:
                self.inventory.put(kind, obj)
            else:
                self.inventory.delete(kind, obj)
            if here and _of_a_lease(obj):
                return  # no news to anybody: its devices are engaged already
            for listener in self._listeners:
                listener()

        return feed


def _of_a_lease(obj: Obj) -> bool:
    return str(obj["metadata"].get("namespace", "")).startswith(namespace_of("lse-"))
