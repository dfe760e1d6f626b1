"""Drivers nobody here has met: known by the attributes that usually identify hardware, or not offered."""

from __future__ import annotations

from broker.dra.adapters.identity import STANDARD, Identity, build
from broker.dra.model import AttributeValue, Device

OWN_DRIVER = "lendmesh.dev"
_KEYS = ("uuid", "serial", "serialNumber")
_PLACES = ("pciBusID", "pciAddr", "pciAddress", "index", "id", "minor")
_MODELS = ("productName", "model", "modelName", "product", "type", "family")


def identify(device: Device) -> Identity:
    own = device.id.driver
    keys = [(f"{own}/{name}", device.attribute(f"{own}/{name}")) for name in _KEYS]
    places: list[tuple[str, AttributeValue]] = [
        (f"{domain}/{name}", device.attribute(f"{domain}/{name}")) for name in _PLACES for domain in (STANDARD, own)
    ]
    key = next((value for _, value in keys if isinstance(value, str) and value), "")
    models = (device.attribute(f"{own}/{name}") for name in _MODELS)
    return build(
        device,
        key=key,
        model=next((value for value in models if isinstance(value, str) and value), ""),
        pins=keys + places,
        partition_of="",
    )


def identify_own(device: Device) -> Identity:
    """Proxies of other clusters' devices: what was borrowed, or could be, is not lent on."""
    return build(device, key="", model="remote device", pins=(), excluded="it stands for a device of another cluster")
