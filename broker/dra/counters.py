"""Shared counters (KEP-4815): what the devices in use leave of a pool's counter sets.

A counter set belongs to a pool, named by driver *and* pool; every device in use consumes its share once, however many
claims share it, and wherever in the cluster it is. A set may come out negative when a driver republishes while devices
are in use; the scheduler then allocates no counter-consuming device of that pool, and neither do we.
"""

from __future__ import annotations

from broker.dra.model import Allocated, Device, PoolId
from broker.dra.pools import Pool

Key = tuple[str, str]  # counter set, counter


class Ledger:
    """Counters left in each pool while an allocation is tried; ``take`` and ``give_back`` undo each other."""

    def __init__(self, allocated: Allocated) -> None:
        self._allocated = allocated
        self._left: dict[PoolId, dict[Key, int]] = {}
        self._overdrawn: dict[PoolId, bool] = {}

    def take(self, device: Device, pool: Pool) -> bool:
        """Reserve what the device consumes; false, and nothing reserved, when the pool has too little left."""
        left = self._left.get(pool.id)
        if left is None:
            left = self._left[pool.id] = available(pool, self._allocated)
            self._overdrawn[pool.id] = any(amount < 0 for amount in left.values())
        if self._overdrawn[pool.id]:
            return False
        wanted = consumption(device)
        if any(left.get(key, 0) < amount for key, amount in wanted.items()):
            return False
        for key, amount in wanted.items():
            left[key] -= amount
        return True

    def give_back(self, device: Device, pool: Pool) -> None:
        left = self._left[pool.id]
        for key, amount in consumption(device).items():
            left[key] += amount


def consumption(device: Device) -> dict[Key, int]:
    """What a device consumes while in use, in billionths; kept with the device."""
    made: dict[Key, int] | None = device.cache.get("consumption")
    if made is None:
        made = {}
        for use in device.consumes:
            for name, amount in use.counters.items():
                made[use.counter_set, name] = made.get((use.counter_set, name), 0) + amount.nanos
        device.cache["consumption"] = made
    return made


def available(pool: Pool, allocated: Allocated) -> dict[Key, int]:
    """What is left of every counter of the pool, in billionths; may be negative."""
    left = {(one.name, name): amount.nanos for one in pool.counter_sets.values() for name, amount in
            one.counters.items()}  # fmt: skip
    for device in pool.devices:
        if device.consumes and allocated.in_use(device.id):
            for key, amount in consumption(device).items():
                if key in left:
                    left[key] -= amount
    return left
