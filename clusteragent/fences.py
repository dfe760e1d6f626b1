"""The highest fence that was seen for each device: the lender's own memory of what was granted after what.

A fence is a number that only rises. Whoever comes with a lower one than was seen holds an old paper and is refused,
whatever the broker says (design §2): so a broker that was restored from a backup cannot lend a device twice. The
numbers outlive the agent in a ConfigMap that the chart made; they are written before a hold is reported, many leases at
once.
"""

import asyncio
import json
from collections.abc import Mapping

from clusteragent.kube.interface import CONFIG_MAPS, Conflict, Kube

CONFIG_MAP = "lendmesh-agent-fences"
KEY = "fences"
TRIES = 10


class Fences:
    """Device (``driver/pool/name``) → highest fence. Raises ``KubeError``."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._highest: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Read them; to be awaited before anything is held."""
        found = await self._kube.get(CONFIG_MAPS, CONFIG_MAP, self._namespace)
        self._durable = _read(found)
        self._highest = dict(self._durable)

    @property
    def highest(self) -> int:
        """Over all devices."""
        return max(self._durable.values(), default=0)

    def lower(self, fences: Mapping[str, int]) -> str | None:
        """A device whose fence is older than one that was seen; None when all are good."""
        return next((device for device, fence in fences.items() if fence < self._highest.get(device, 0)), None)

    async def remember(self, fences: Mapping[str, int]) -> None:
        """Return when these are durable. Calls that come while one writes are written together after it."""
        for device, fence in fences.items():
            self._highest[device] = max(fence, self._highest.get(device, 0))
        async with self._writing:
            if all(self._durable.get(device, 0) >= fence for device, fence in fences.items()):
                return
            await self._write()

    async def _write(self) -> None:
        for _ in range(TRIES):
            found = await self._kube.get(CONFIG_MAPS, CONFIG_MAP, self._namespace)
            kept = _read(found)
            merged = {device: max(fence, kept.get(device, 0)) for device, fence in {**kept, **self._highest}.items()}
            data = {**(found.get("data") or {}), KEY: json.dumps(merged, sort_keys=True, separators=(",", ":"))}
            try:
                await self._kube.replace(CONFIG_MAPS, {**found, "data": data})
            except Conflict:
                continue
            self._durable = merged
            return
        raise TimeoutError("somebody else keeps writing the agent's fences: are two agents running in this cluster?")


def _read(found: Mapping[str, object]) -> dict[str, int]:
    data = found.get("data")
    text = data.get(KEY, "{}") if isinstance(data, dict) else "{}"
    return {str(device): int(fence) for device, fence in json.loads(text).items()}
