"""The Kubernetes example driver, ``gpu.example.com``: pretended GPUs, for tests and for trying things out."""

from __future__ import annotations

from broker.dra.adapters.identity import Identity, build, number, text
from broker.dra.model import Device

DRIVER = "gpu.example.com"


def identify(device: Device) -> Identity:
    uuid, index = text(device, "uuid"), number(device, "index")
    return build(
        device,
        key=uuid,
        model=text(device, "model"),
        pins=[(f"{DRIVER}/uuid", uuid), (f"{DRIVER}/index", index)],
        partition="partition" if "-partition-" in device.id.device else "",
    )
