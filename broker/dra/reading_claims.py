"""Raw ResourceClaims and DeviceClasses in, nouns of ``model.py`` out (see ``normalise.py``)."""

from __future__ import annotations

from typing import Any

from broker.dra.model import (
    Allocation,
    Ask,
    Claim,
    Config,
    Constraint,
    DeviceClass,
    DeviceId,
    Request,
    Result,
    Toleration,
)
from broker.dra.quantity import Quantity
from broker.dra.reading import Malformed, amount, boolean, each, integer, items, table, text, texts

_MOST_EXPRESSION = 64 * 1024  # longer ones than Kubernetes allows are for the selector itself to refuse


def read_claim(raw: object) -> Claim:
    """A ResourceClaim with its requests and, when it has one, its allocation."""
    whole = table(raw, "ResourceClaim")
    metadata = table(whole.get("metadata"), "metadata")
    devices = table(table(whole.get("spec"), "spec").get("devices"), "spec.devices")
    status = table(whole.get("status"), "status")
    return Claim(
        namespace=text(metadata.get("namespace"), "metadata.namespace"),
        name=text(metadata.get("name"), "metadata.name"),
        uid=text(metadata.get("uid"), "metadata.uid"),
        requests=each(devices.get("requests"), "spec.devices.requests", _request, most=64),
        constraints=each(devices.get("constraints"), "spec.devices.constraints", _constraint, most=64),
        config=each(devices.get("config"), "spec.devices.config", _config, most=64),
        allocation=read_allocation(status.get("allocation")),
        reserved_for=each(status.get("reservedFor"), "status.reservedFor", _consumer),
    )


def read_allocation(raw: object) -> Allocation | None:
    """What stands under ``status.allocation``; None when the claim is not allocated."""
    if raw is None:
        return None
    whole = table(raw, "status.allocation")
    devices = table(whole.get("devices"), "status.allocation.devices")
    selector = whole.get("nodeSelector")
    return Allocation(
        results=each(devices.get("results"), "status.allocation.devices.results", _result),
        node_selector=None if selector is None else table(selector, "status.allocation.nodeSelector"),
        config=tuple(
            table(entry, "status.allocation.devices.config")
            for entry in items(devices.get("config"), "status.allocation.devices.config")
        ),
    )


def read_holding(raw: object) -> tuple[Result, ...]:
    """The devices that a ResourceClaim holds, whatever the rest of it looks like."""
    allocation = table(table(raw, "ResourceClaim").get("status"), "status").get("allocation")
    devices = table(table(allocation, "status.allocation").get("devices"), "status.allocation.devices")
    return each(devices.get("results"), "status.allocation.devices.results", _result)


def read_class(raw: object) -> DeviceClass:
    """A DeviceClass."""
    whole = table(raw, "DeviceClass")
    spec = table(whole.get("spec"), "spec")
    return DeviceClass(
        name=text(table(whole.get("metadata"), "metadata").get("name"), "metadata.name", needed=True),
        selectors=each(spec.get("selectors"), "spec.selectors", _selector, most=64),
        config=each(spec.get("config"), "spec.config", _config, most=64),
    )


def _request(raw: Any, where: str) -> Request:
    whole = table(raw, where)
    name = text(whole.get("name"), f"{where}.name")
    choices = items(whole.get("firstAvailable"), f"{where}.firstAvailable", most=64)
    if choices:
        asks = tuple(_ask(choice, f"{where}.firstAvailable[{i}]", "") for i, choice in enumerate(choices))
        return Request(name, asks, prioritised=True)
    body = whole["exactly"] if whole.get("exactly") is not None else whole
    return Request(name, (_ask(body, where, name),))


def _ask(raw: Any, where: str, name: str) -> Ask:
    whole = table(raw, where)
    mode = text(whole.get("allocationMode"), f"{where}.allocationMode") or "ExactCount"
    admin = whole.get("adminAccess")
    capacity = whole.get("capacity")
    tolerations = items(whole.get("tolerations"), f"{where}.tolerations", most=64)
    return Ask(
        name=name or text(whole.get("name"), f"{where}.name"),
        class_name=text(whole.get("deviceClassName"), f"{where}.deviceClassName"),
        selectors=each(whole.get("selectors"), f"{where}.selectors", _selector, most=64),
        mode=mode,
        count=_count(whole.get("count"), f"{where}.count"),
        admin=None if admin is None else boolean(admin, f"{where}.adminAccess"),
        tolerations=tuple(_toleration(entry, f"{where}.tolerations") for entry in tolerations),
        raw_tolerations=tuple(table(entry, f"{where}.tolerations") for entry in tolerations),
        capacity=None if capacity is None else _amounts(table(capacity, f"{where}.capacity").get("requests"), where),
    )


def _count(raw: Any, where: str) -> int:
    count = integer(raw, where)
    if count < 0:
        raise Malformed(f"{where}: is negative")
    return count or 1


def _amounts(raw: Any, where: str) -> dict[str, Quantity]:
    return {name: amount(value, f"{where}[{name}]") for name, value in table(raw, where, most=64).items()}


def _selector(raw: Any, where: str) -> str | None:
    expression = table(raw, where).get("cel")
    if expression is None:
        return None
    return text(table(expression, f"{where}.cel").get("expression"), f"{where}.cel.expression", most=_MOST_EXPRESSION)


def _toleration(raw: Any, where: str) -> Toleration:
    whole = table(raw, where)
    return Toleration(*(text(whole.get(key), f"{where}.{key}") for key in ("key", "operator", "value", "effect")))


def _constraint(raw: Any, where: str) -> Constraint:
    whole = table(raw, where)
    requests = texts(whole.get("requests"), f"{where}.requests", most=64)
    for kind in ("match", "distinct"):
        if whole.get(f"{kind}Attribute") is not None:
            name = text(whole[f"{kind}Attribute"], f"{where}.{kind}Attribute", most=2 * 253)
            return Constraint(kind, name, requests)
    return Constraint("", "", requests)


def _config(raw: Any, where: str) -> Config:
    whole = table(raw, where)
    return Config(
        requests=texts(whole.get("requests"), f"{where}.requests", most=64),
        raw={key: value for key, value in whole.items() if key != "requests"},
    )


def _result(raw: Any, where: str) -> Result:
    whole = table(raw, where)
    names = [text(whole.get(key), f"{where}.{key}", needed=True) for key in ("driver", "pool", "device")]
    admin = whole.get("adminAccess")
    return Result(
        request=text(whole.get("request"), f"{where}.request", most=2 * 253),
        id=DeviceId(*names),
        admin=None if admin is None else boolean(admin, f"{where}.adminAccess"),
        share_id=text(whole.get("shareID"), f"{where}.shareID") or None,
        consumed=_amounts(whole.get("consumedCapacity"), f"{where}.consumedCapacity"),
        raw_tolerations=each(whole.get("tolerations"), f"{where}.tolerations", table, most=64),
        binding_conditions=texts(whole.get("bindingConditions"), f"{where}.bindingConditions", most=16),
        binding_failure_conditions=texts(
            whole.get("bindingFailureConditions"), f"{where}.bindingFailureConditions", most=16
        ),
    )


def _consumer(raw: Any, where: str) -> str:
    return text(table(raw, where).get("uid"), f"{where}.uid")
