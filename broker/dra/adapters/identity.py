"""What an adapter says about a device, and what adapters have in common."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from broker.dra.model import AttributeValue, Device, Version

STANDARD = "resource.kubernetes.io"
# Attributes that tell one device from the next of its kind; a kind is what is left without them.
_OWN_NAMES = frozenset(
    {"uuid", "parentUUID", "serial", "index", "minor", "id", "deviceID", "cardIndex", "renderIndex", "gpuModuleID"}
    | {"pciAddr", "parentPciAddr", "pciAddress", "pciBusID", "pciRoot", "pcieRoot", "numaNode", "health", "healthy"}
    | {"partition1", "partition2", "partition4", "partition8"}
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A device, understood.

    Attributes:
        unique_key: follows the hardware where the driver publishes something that does; else empty.
        model: the name people know it by.
        memory_bytes: of the device; None when it is not published.
        partition: the profile, where the device is part of another one.
        partition_of: key of the hardware it is part of, or another face of; devices with the same one exclude each
            other where ``exclusive`` is set.
        lendable_unit: "node" where all devices of a node must be used together.
        excluded_because: why it is never offered; empty when it may be.
        pin_cel: with the device's node, selects exactly this device; None when nothing published can.
        kind: equal for devices that are the same to a borrower.
        kind_attributes, kind_capacity: what devices of the kind have in common, as Kubernetes writes it.
        placement: where it sits among the others (NVLink clique, PCI root, NUMA node).
    """

    unique_key: str
    model: str
    memory_bytes: int | None
    partition: str = ""
    partition_of: str = ""
    exclusive: bool = False
    lendable_unit: Literal["device", "node"] = "device"
    excluded_because: str = ""
    pin_cel: str | None = None
    kind: str = ""
    kind_attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kind_capacity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    placement: Mapping[str, str] = field(default_factory=dict)


def build(
    device: Device,
    *,
    key: str,
    model: str,
    pins: Iterable[tuple[str, AttributeValue]],
    memory: str = "memory",
    partition: str = "",
    partition_of: str = "",
    exclusive: bool = False,
    unit: Literal["device", "node"] = "device",
    excluded: str = "",
    own_capacity: tuple[str, ...] = (),
) -> Identity:
    """An identity with what every adapter works out in the same way.

    ``pins`` are attributes, fully qualified, that together select the device; pairs without a value do not count, and
    without any value left the device cannot be pinned and is excluded. Capacities whose names begin with one of
    ``own_capacity`` say which device it is, not of what kind.
    """
    pin = _pin(device.id.driver, pins)
    attributes = {name: value for name, value in raw_attributes(device).items() if short(name) not in _OWN_NAMES}
    capacity = {name: value for name, value in raw_capacity(device).items() if not name.startswith(own_capacity)}
    amount = device.capacity.get(memory)
    if not excluded and pin is None:
        excluded = "nothing it publishes tells it from its neighbours, so it cannot be held by itself"
    if not excluded and device.shareable:
        excluded = "several claims may share it, so it cannot be lent whole"
    if not excluded and device.binding_conditions:
        excluded = "it is attached only while a pod waits for it (binding conditions)"
    label = model or device.id.driver
    return Identity(
        unique_key=key,
        model=label,
        memory_bytes=(amount.value.whole or None) if amount is not None else None,
        partition=partition,
        partition_of=partition_of,
        exclusive=exclusive,
        lendable_unit=unit,
        excluded_because=excluded,
        pin_cel=pin,
        kind=_kind(device.id.driver, label, partition, attributes, capacity),
        kind_attributes=attributes,
        kind_capacity=capacity,
        placement=_placement(device),
    )


def text(device: Device, name: str, domain: str = "") -> str:
    """A string attribute of the driver's (or another) domain; empty when it is not there or of another kind."""
    value = device.attribute(f"{domain or device.id.driver}/{name}")
    return value if isinstance(value, str) else ""


def number(device: Device, name: str) -> int | None:
    value = device.attribute(f"{device.id.driver}/{name}")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def short(name: str) -> str:
    return name.rpartition("/")[2]


def raw(value: AttributeValue) -> dict[str, Any]:
    """An attribute as Kubernetes writes it."""
    if value is None:
        return {}
    many = value if isinstance(value, tuple) else (value,)
    plain = [item.text if isinstance(item, Version) else item for item in many]
    kind = _KINDS.get(type(many[0]), "string") if many else "string"
    return {f"{kind}s": plain} if isinstance(value, tuple) else {kind: plain[0]}


def raw_attributes(device: Device) -> dict[str, dict[str, Any]]:
    """All attributes as Kubernetes writes them; made once and kept with the device."""
    made: dict[str, dict[str, Any]] | None = device.cache.get("raw")
    if made is None:
        made = device.cache["raw"] = {name: raw(value) for name, value in device.attributes.items()}
    return made


def raw_capacity(device: Device) -> dict[str, dict[str, Any]]:
    """All capacities as Kubernetes writes them; made once and kept with the device."""
    made: dict[str, dict[str, Any]] | None = device.cache.get("raw-capacity")
    if made is None:
        made = device.cache["raw-capacity"] = {k: {"value": str(one.value)} for k, one in device.capacity.items()}
    return made


_UNSAFE = re.compile(r"[^-A-Za-z0-9_.:/ +,@()\[\]]")
_KINDS: dict[type, str] = {bool: "bool", int: "int", str: "string", Version: "version"}


def _pin(driver: str, pins: Iterable[tuple[str, AttributeValue]]) -> str | None:
    terms: list[str] = []
    for name, value in pins:
        domain, _, attribute = name.partition("/")
        if isinstance(value, bool) or value in (None, ""):
            continue
        where = f"device.attributes[{literal(domain)}].?{attribute}"
        if isinstance(value, int):
            terms.append(f"{where}.orValue(-1) == {value}")
        elif isinstance(value, str):
            terms.append(f"{where}.orValue('') == {literal(value)}")
    return " && ".join([f"device.driver == {literal(driver)}", *terms]) if terms else None


def literal(value: str) -> str:
    """A CEL string literal, whatever the text holds."""
    safe = _UNSAFE.sub(lambda found: f"\\U{ord(found[0]):08x}", value)
    return f"'{safe}'"


def _kind(driver: str, model: str, partition: str, attributes: Mapping[str, Any], capacity: Mapping[str, Any]) -> str:
    told = json.dumps([attributes, capacity], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(told.encode()).hexdigest()[:12]
    return "/".join(part for part in (driver, model, partition, digest) if part)


def _placement(device: Device) -> dict[str, str]:
    found = {
        name: device.attribute(f"{STANDARD}/{name}") for name in ("pcieRoot", "pciBusID", "numaNode")
    } | {"clique": device.attribute(f"{device.id.driver}/cliqueID")}  # fmt: skip
    return {name: str(value) for name, value in found.items() if isinstance(value, str | int)}
