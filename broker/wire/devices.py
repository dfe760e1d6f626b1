"""Devices as they travel: which hardware, what kind, how confidential, and where.

A device is ``(driver, pool, name)`` of a ResourceSlice and, where the driver publishes one, a key that follows the
hardware. Attributes and capacity keep the form of ``resource.k8s.io/v1`` (``{"productName": {"string": "…"}}``), so
that a CEL selector means here what it means to kube-scheduler.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from broker.wire.base import Inbound, Label, Name, ShortText

DriverName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9./]{0,252}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


class DeviceId(Inbound):
    """One device of one cluster."""

    driver: DriverName
    pool: PoolName
    name: Name

    def ref(self, cluster: str) -> str:
        """The key of the rule «never in two live leases»."""
        return ref_of(cluster, self.driver, self.pool, self.name)


def ref_of(cluster: str, driver: str, pool: str, name: str) -> str:
    """As ``DeviceId.ref``, for whoever has the parts."""
    return f"{cluster}/{driver}/{pool}/{name}"


class OfferedDevice(DeviceId):
    """A device that is free and may be lent."""

    node: NodeName | None = None
    """The node it sits in; None for a device that a network reaches."""
    key: Annotated[str, StringConstraints(max_length=253)] | None = None
    """The vendor's own key for the hardware (a GPU's UUID), where the driver publishes one."""


class Kind(Inbound):
    """What makes devices interchangeable for a borrower."""

    driver: DriverName
    model: Annotated[str, StringConstraints(max_length=128)]
    """As the driver's adapter names it, e.g. ``NVIDIA H100 80GB HBM3`` or ``tpu v5e``."""
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 50)] | None = None
    partition: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The profile, where the device is a part of another (``1g.10gb``)."""
    attributes: Annotated[dict[str, dict[str, Any]], Field(max_length=64)] = {}
    """What all devices of this kind have in common; identities (UUID, bus address, index) are left out."""
    capacity: Annotated[dict[str, dict[str, Any]], Field(max_length=64)] = {}


class Place(Inbound):
    """Where devices are, as the cluster's owner or its node labels declare it."""

    region: Label | None = None
    jurisdiction: Label | None = None
    """Under whose law they are: ``EU``, ``DE``, ``US-CA``; whatever the federation agrees to call it."""
    zone: Label | None = None
    provider: Label | None = None


class Confidential(Inbound):
    """What the nodes declare about confidential computing. A label advertises; only attestation proves."""

    tee: Literal["sev-snp", "tdx", "none"] = "none"
    """The trusted execution environment of the machine."""
    gpu: Literal["on", "devtools", "ppcie", "off"] = "off"
    """The GPU's confidential mode, as the node label ``nvidia.com/cc.mode.state`` observes it."""
    basis: Literal["declared"] = "declared"

    @property
    def declared(self) -> bool:
        """Both the machine and the device say they are confidential (devtools is a debugging mode: not)."""
        return self.tee != "none" and self.gpu in ("on", "ppcie")


class Excluded(Inbound):
    """Devices that are not on offer, and why: counted, for people."""

    reason: ShortText
    devices: Annotated[int, Field(ge=0)]
