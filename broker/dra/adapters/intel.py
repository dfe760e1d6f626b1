"""Intel: GPUs (``gpu.intel.com``), Gaudi (``gaudi.intel.com``), and QAT, which is no accelerator of our kind.

No uuid is published; a GPU is told by its PCI address, a Gaudi by its serial number where it has one.
"""

from __future__ import annotations

from broker.dra.adapters.identity import STANDARD, Identity, build, text
from broker.dra.model import Device

GPU_DRIVER = "gpu.intel.com"
GAUDI_DRIVER = "gaudi.intel.com"
QAT_DRIVER = "qat.intel.com"


def identify_gpu(device: Device) -> Identity:
    standard, old = text(device, "pciBusID", STANDARD), text(device, "pciAddress")
    model = text(device, "model")
    bound_to = text(device, "driver")
    return build(
        device,
        key=f"{device.id.pool}/{standard or old}" if standard or old else "",
        model=model if model not in ("", "Unknown") else f"Intel GPU {text(device, 'pciId')}".strip(),
        pins=[(f"{STANDARD}/pciBusID", standard)] if standard else [(f"{GPU_DRIVER}/pciAddress", old)],
        excluded="bound for passthrough" if bound_to == "vfio-pci" else "",
    )


def identify_gaudi(device: Device) -> Identity:
    serial, address = text(device, "serial"), text(device, "pciBusID", STANDARD)
    return build(
        device,
        key=serial or (f"{device.id.pool}/{address}" if address else ""),
        model=text(device, "model"),
        pins=[(f"{GAUDI_DRIVER}/serial", serial), (f"{STANDARD}/pciBusID", address)],
    )


def identify_qat(device: Device) -> Identity:
    return build(device, key="", model="Intel QAT", pins=(), excluded="it compresses and encrypts; nobody borrows it")
