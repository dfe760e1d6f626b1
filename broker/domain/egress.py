"""What it costs to bring a request's data to where its devices are.

Clouds charge by the gigabyte for what leaves a region, and nobody but the operator knows by whose list. So there is a
price for all ways and others for single ones; within a region data is near.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MOST_MICROS = 1_000_000_000_000_000
"""A billion dollars; whatever costs more is as good as impossible."""


@dataclass(frozen=True, slots=True)
class Egress:
    """Prices of ways between regions."""

    default_micros: int = 90_000
    """µUSD per gigabyte, of every way that ``routes`` says nothing about."""
    routes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """From → to → µUSD per gigabyte; also within a region, if that isn't free."""

    def micros(self, origin: str, to: str, gigabytes: int) -> int:
        """µUSD for so much. An offer that names no region may be anywhere, and is taken to be elsewhere."""
        near = 0 if origin == to else self.default_micros
        return min(self.routes.get(origin, {}).get(to, near) * gigabytes, MOST_MICROS)

    def transfers(self, origin: str, gigabytes: int, regions: Iterable[str]) -> dict[str, int]:
        """Region → µUSD of bringing so much there; where that is free, the region is left out."""
        costs = {region: self.micros(origin, region, gigabytes) for region in regions}
        return {region: micros for region, micros in costs.items() if micros}
