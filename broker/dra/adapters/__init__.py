"""What each vendor's driver means: one adapter a driver, and a default for drivers nobody here has met.

DRA leaves it to drivers what they publish; only the PCI root, the PCI address and the NUMA node are common. An adapter
turns one published device into an ``Identity``: what it is, how it can be asked for by itself, and whether it may be
lent at all. ``identify`` picks the adapter.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.dra.adapters import amd, default, example, google, intel, nvidia
from broker.dra.adapters.identity import Identity
from broker.dra.model import Device

__all__ = ["Identity", "identify", "plugin_resources"]

_ADAPTERS: dict[str, Callable[[Device], Identity]] = {
    nvidia.DRIVER: nvidia.identify,
    nvidia.DOMAIN_DRIVER: nvidia.identify_domain,
    google.DRIVER: google.identify,
    amd.DRIVER: amd.identify,
    intel.GPU_DRIVER: intel.identify_gpu,
    intel.GAUDI_DRIVER: intel.identify_gaudi,
    intel.QAT_DRIVER: intel.identify_qat,
    example.DRIVER: example.identify,
    default.OWN_DRIVER: default.identify_own,
}
_PLUGINS: dict[str, tuple[str, ...]] = {
    nvidia.DRIVER: ("nvidia.com/gpu", "nvidia.com/pgpu"),
    google.DRIVER: ("google.com/tpu",),
    amd.DRIVER: ("amd.com/gpu",),
    intel.GPU_DRIVER: ("gpu.intel.com/i915", "gpu.intel.com/xe"),
    intel.GAUDI_DRIVER: ("habana.ai/gaudi",),
}


def identify(device: Device) -> Identity:
    """What a device is, as its driver's adapter reads it."""
    return _ADAPTERS.get(device.id.driver, default.identify)(device)


def plugin_resources(driver: str) -> tuple[str, ...]:
    """Extended resources under which a device plugin hands out the same hardware; both at once on a node is unsafe."""
    return _PLUGINS.get(driver, ())
