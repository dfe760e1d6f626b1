"""AMD, ``gpu.amd.com``: no uuid is published; the PCI address and the render node tell devices of a node apart."""

from __future__ import annotations

from broker.dra.adapters.identity import Identity, build, number, text
from broker.dra.model import Device

DRIVER = "gpu.amd.com"


def identify(device: Device) -> Identity:
    kind, address, parent = (text(device, name) for name in ("type", "pciAddr", "parentPciAddr"))
    render = number(device, "renderIndex")
    part = kind == "amdgpu-partition"
    place = address or parent
    return build(
        device,
        key=f"{device.id.pool}/{place}/{render}" if part and place else f"{device.id.pool}/{place}" if place else "",
        model=text(device, "productName").replace("_", " "),
        pins=[
            (f"{DRIVER}/type", kind),
            (f"{DRIVER}/pciAddr", address),
            (f"{DRIVER}/parentPciAddr", parent),
            (f"{DRIVER}/renderIndex", render),
        ]
        if place or render is not None
        else (),
        partition=text(device, "partitionProfile") if part else "",
        partition_of=f"{device.id.pool}/{parent}" if part and parent else "",
    )
