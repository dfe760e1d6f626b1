"""Is a single device free right now? What a lone claim for one device, tolerating nothing, would find.

This is what an offer is made of. It is the allocator's judgement of one device, without a search: nothing competes.
"""

from __future__ import annotations

from broker.dra import capacity, taints
from broker.dra.cel_values import unreadable
from broker.dra.counters import Ledger
from broker.dra.model import Allocated, Device, DeviceId, Features
from broker.dra.pools import READY, NodePool, Pool

ALLOCATED, TAINTED, UNUSABLE = "allocated", "tainted", "unusable"


def obstacle(
    device: Device, pool: Pool, *, allocated: Allocated, ledger: Ledger, features: Features
) -> tuple[str, str] | None:
    """What keeps a lone one-device claim from the device, as (state, reason); None when it is free.

    The pool must be ready. The ledger is only tried, not changed.
    """
    if device.id in allocated.dedicated:
        return ALLOCATED, "allocated to a claim"
    shared = device.shareable and features.consumable_capacity
    if device.binding_conditions and not features.binding_conditions:
        return UNUSABLE, "has binding conditions, which are off"
    problem = unreadable(device.view, lists=features.list_attributes)
    if problem:
        return UNUSABLE, f"no selector can be evaluated on it: {problem}"
    if features.device_taints:
        taint = taints.untolerated(device.taints, ())
        if taint is not None:
            return TAINTED, f"{taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"
    if device.consumes:
        if not features.partitionable_devices:
            return UNUSABLE, "consumes shared counters, which are off"
        if not (shared and device.id in allocated.consumed):
            if not ledger.take(device, pool):
                return ALLOCATED, "what it shares with other partitions is in use"
            ledger.give_back(device, pool)
    if features.consumable_capacity:
        taken = allocated.consumed.get(device.id, {})
        if not capacity.fits(None, device.capacity, taken, {}):
            return ALLOCATED, "too little capacity is left"
    return None


def free_on(views: list[NodePool], *, allocated: Allocated, features: Features) -> set[DeviceId]:
    """The devices of a node's ready pools that are free."""
    ledger = Ledger(allocated)
    return {
        candidate.device.id
        for view in views
        if view.pool.state == READY
        for candidate in view.candidates
        if candidate.on_node
        and obstacle(candidate.device, view.pool, allocated=allocated, ledger=ledger, features=features) is None
    }
