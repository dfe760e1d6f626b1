"""Which free devices can be had at the same time.

A GPU and its partitions are each free while none of them is in use, and none is any more once one is: they share
counters (KEP-4815). Whoever offers devices must not offer the same hardware twice, so he asks here for a set of them
that can all be lent at once. Whole devices are preferred to parts, large parts to small ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.dra.counters import Key
from broker.dra.model import PoolId
from broker.dra.states import DeviceState


def together(devices: Iterable[DeviceState], *, beside: Iterable[DeviceState] = ()) -> list[DeviceState]:
    """Of free devices those that can be had all at once, in the order given.

    Args:
        devices: free devices of one inventory, as of one moment.
        beside: devices that are promised already, though no claim holds them yet: what they need is kept for them.
    """
    left: dict[PoolId, dict[Key, int]] = {}
    for device in beside:
        _take(device, left, anyway=True)
    offered = list(devices)
    preferred = sorted(
        offered, key=lambda one: (bool(one.identity.partition), -(one.identity.memory_bytes or 0), one.id)
    )
    chosen = {one.id for one in preferred if _take(one, left, anyway=False)}
    return [one for one in offered if one.id in chosen]


def _take(device: DeviceState, left: dict[PoolId, dict[Key, int]], *, anyway: bool) -> bool:
    if not device.consumes:
        return True
    room = left.setdefault(PoolId(device.driver, device.pool), dict(device.room))
    if not anyway and any(room.get(key, 0) < amount for key, amount in device.consumes.items()):
        return False
    for key, amount in device.consumes.items():
        room[key] = room.get(key, 0) - amount
    return True
