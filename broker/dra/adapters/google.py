"""Google TPU, ``tpu.google.com``: all chips of a node are used together, so a node is the unit that is lent.

The driver derives ``uuid`` from the node's name alone; only ``index`` tells the chips of a node apart.
"""

from __future__ import annotations

from broker.dra.adapters.identity import Identity, build, number, text
from broker.dra.model import Device

DRIVER = "tpu.google.com"


def identify(device: Device) -> Identity:
    uuid, index = text(device, "uuid"), number(device, "index")
    generation = text(device, "tpuGen") or text(device, "accelerator")
    return build(
        device,
        key=f"{uuid}/{index}" if uuid and index is not None else "",
        model=f"tpu {generation}".strip(),
        pins=[(f"{DRIVER}/index", index)],
        unit="node",
    )
