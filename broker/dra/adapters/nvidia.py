"""NVIDIA: ``gpu.nvidia.com`` (full GPUs, MIG, passthrough, vGPU) and ``compute-domain.nvidia.com`` (NVLink plumbing).

A GPU's ``uuid`` appears on every face of it: the GPU, its passthrough (vfio) twin, its vGPUs. So a device is known by
type *and* uuid. A MIG device that is created on demand has no uuid yet; parent, profile and the memory slices it
would take tell it from its siblings where the driver publishes them.
"""

from __future__ import annotations

from dataclasses import replace

from broker.dra.adapters.identity import Identity, build, literal, text
from broker.dra.model import AttributeValue, Device

DRIVER = "gpu.nvidia.com"
DOMAIN_DRIVER = "compute-domain.nvidia.com"
_SLICES = ("memorySlice",)  # capacities memorySlice0…7: which part of its GPU's memory a MIG device takes


def identify(device: Device) -> Identity:
    kind, uuid, parent = (text(device, name) for name in ("type", "uuid", "parentUUID"))
    profile = text(device, "profile")
    if kind == "mig" and not uuid:
        return _dynamic_mig(device, parent, profile)
    excluded = ""
    if kind == "vgpu":
        excluded = "a virtual GPU is lent only by its own cluster"
    elif kind == "vfio":
        excluded = "the passthrough face of a GPU; the GPU is offered as itself"
    elif kind not in ("gpu", "mig"):
        excluded = f"a device of type {kind or 'unknown'}"
    return build(
        device,
        key=f"{kind}/{uuid}" if uuid and kind != "gpu" else uuid,
        model=text(device, "productName"),
        pins=_pins(kind, ("uuid", uuid)) if uuid else (),
        memory="addressableMemory" if kind == "vfio" else "memory",
        partition=profile,
        partition_of=parent if kind == "mig" else uuid,
        exclusive=kind in ("gpu", "vfio"),
        excluded=excluded,
        own_capacity=_SLICES,
    )


def identify_domain(device: Device) -> Identity:
    """Channels and daemons of NVLink domains: part of the wiring, nothing that can be lent."""
    told = "plumbing of NVLink domains, not capacity"
    return build(device, key="", model=text(device, "type"), pins=(), excluded=told)


def _dynamic_mig(device: Device, parent: str, profile: str) -> Identity:
    slices = sorted(name for name in device.capacity if name.startswith(_SLICES))
    built = build(
        device,
        key=f"mig/{parent}/{profile}/{device.id.device}" if parent else "",
        model=text(device, "productName"),
        pins=_pins("mig", ("parentUUID", parent), ("profile", profile)) if parent and profile else (),
        partition=profile,
        partition_of=parent,
        own_capacity=_SLICES,
    )
    if built.pin_cel is None or not slices:
        return built
    held = " && ".join(f"{literal(name)} in device.capacity[{literal(DRIVER)}]" for name in slices)
    return replace(built, pin_cel=f"{built.pin_cel} && {held}")


def _pins(kind: str, *pairs: tuple[str, AttributeValue]) -> list[tuple[str, AttributeValue]]:
    return [(f"{DRIVER}/type", kind), *((f"{DRIVER}/{name}", value) for name, value in pairs)]
