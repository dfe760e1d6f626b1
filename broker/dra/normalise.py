"""The door: raw Kubernetes objects in, the nouns of ``model.py`` out.

Three API versions come through it. v1 and v1beta2 have the same fields; v1beta1 puts a device's body under ``basic``
and a request's body flat into the request (KEP-4381). A ResourceSlice that says which pool it belongs to and is
otherwise unreadable still becomes a ``Slice``, with a problem: its pool must then offer nothing, which only works if
the pool hears of it. Anything else that is unreadable raises ``Malformed``. Nothing here trusts a size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.dra.model import (
    Allocation,
    Ask,
    AttributeValue,
    Capacity,
    Claim,
    Config,
    Constraint,
    CounterSet,
    CounterUse,
    Device,
    DeviceClass,
    DeviceId,
    DeviceView,
    Node,
    NodeRule,
    NodeTerm,
    PoolId,
    Request,
    RequestPolicy,
    Requirement,
    Result,
    Slice,
    Taint,
    Toleration,
    ValidRange,
    Version,
)
from broker.dra.quantity import Quantity
from broker.dra.reading import Malformed, amount, boolean, each, integer, items, optional_amount, table, text, texts

__all__ = [
    "Malformed",
    "read_allocation",
    "read_attributes",
    "read_claim",
    "read_class",
    "read_holding",
    "read_node",
    "read_slice",
    "read_view",
]

_MOST_TEXT = 256  # of an attribute; Kubernetes allows 64
_MOST_EXPRESSION = 64 * 1024  # longer ones than Kubernetes allows are for the selector itself to refuse


def read_slice(raw: object) -> Slice:
    """A ResourceSlice; raises Malformed when not even its pool can be told."""
    whole = table(raw, "ResourceSlice")
    name = text(table(whole.get("metadata"), "metadata").get("name"), "metadata.name")
    spec = table(whole.get("spec"), "spec")
    pool_raw = table(spec.get("pool"), "spec.pool")
    driver = text(spec.get("driver"), "spec.driver", needed=True)
    pool = PoolId(driver, text(pool_raw.get("name"), "spec.pool.name", needed=True))
    generation = integer(pool_raw.get("generation"), "spec.pool.generation")
    count = integer(pool_raw.get("resourceSliceCount"), "spec.pool.resourceSliceCount")
    try:
        return Slice(
            name=name,
            pool=pool,
            generation=generation,
            slice_count=count,
            nodes=_node_rule(spec, "spec"),
            per_device=boolean(spec.get("perDeviceNodeSelection"), "spec.perDeviceNodeSelection"),
            devices=each(spec.get("devices"), "spec.devices", lambda d, where: _device(d, where, pool)),
            counter_sets=each(spec.get("sharedCounters"), "spec.sharedCounters", _counter_set, most=128),
        )
    except Malformed as error:
        return Slice(name=name, pool=pool, generation=generation, slice_count=count, problem=str(error))


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


def read_view(*, driver: str, attributes: object, capacity: object, shareable: bool = False) -> DeviceView:
    """What selectors see of devices of a kind, from attributes and capacity as resource.k8s.io/v1 writes them."""
    amounts = table(capacity, "capacity", most=256)
    return DeviceView(
        driver=driver,
        attributes=read_attributes(attributes),
        capacity={name: _capacity(value, f"capacity[{name}]").value for name, value in amounts.items()},
        shareable=shareable,
    )


def read_class(raw: object) -> DeviceClass:
    """A DeviceClass."""
    whole = table(raw, "DeviceClass")
    spec = table(whole.get("spec"), "spec")
    return DeviceClass(
        name=text(table(whole.get("metadata"), "metadata").get("name"), "metadata.name", needed=True),
        selectors=each(spec.get("selectors"), "spec.selectors", _selector, most=64),
        config=each(spec.get("config"), "spec.config", _config, most=64),
    )


def read_node(raw: object) -> Node:
    """A Node, as far as its name and labels go."""
    metadata = table(table(raw, "Node", most=64).get("metadata"), "metadata")
    labels = table(metadata.get("labels"), "metadata.labels", most=4096)
    return Node(
        name=text(metadata.get("name"), "metadata.name", needed=True),
        labels={key: text(value, f"metadata.labels[{key}]") for key, value in labels.items()},
    )


def read_attributes(raw: object, where: str = "attributes") -> dict[str, AttributeValue]:
    """Device attributes as Kubernetes writes them (``{"type": {"string": "gpu"}}``)."""
    return {name: _attribute(value, f"{where}[{name}]") for name, value in table(raw, where, most=256).items()}


# Slices --------------------------------------------------------------------------------------------------------------


def _device(raw: Any, where: str, pool: PoolId) -> Device:
    outer = table(raw, where)
    body = table(outer["basic"], f"{where}.basic") if "basic" in outer else outer
    name = text(outer.get("name"), f"{where}.name", needed=True)
    capacity = table(body.get("capacity"), f"{where}.capacity", most=256)
    return Device(
        id=DeviceId(pool.driver, pool.pool, name),
        attributes=read_attributes(body.get("attributes"), f"{where}.attributes"),
        capacity={key: _capacity(value, f"{where}.capacity[{key}]") for key, value in capacity.items()},
        consumes=each(body.get("consumesCounters"), f"{where}.consumesCounters", _counter_use, most=64),
        taints=each(body.get("taints"), f"{where}.taints", _taint, most=64),
        nodes=_node_rule(body, where),
        binds_to_node=boolean(body.get("bindsToNode"), f"{where}.bindsToNode"),
        binding_conditions=texts(body.get("bindingConditions"), f"{where}.bindingConditions", most=16),
        binding_failure_conditions=texts(
            body.get("bindingFailureConditions"), f"{where}.bindingFailureConditions", most=16
        ),
        shareable=boolean(body.get("allowMultipleAllocations"), f"{where}.allowMultipleAllocations"),
    )


def _attribute(raw: Any, where: str) -> AttributeValue:
    whole = table(raw, where)
    for kind in ("ints", "bools", "strings", "versions"):
        if whole.get(kind) is not None:
            return tuple(_scalar(value, kind[:-1], where) for value in items(whole[kind], where, most=256))
    for kind in ("int", "bool", "string", "version"):
        if whole.get(kind) is not None:
            return _scalar(whole[kind], kind, where)
    return None


def _scalar(raw: Any, kind: str, where: str) -> bool | int | str | Version:
    if kind == "int":
        return integer(raw, where)
    if kind == "bool":
        return boolean(raw, where)
    value = text(raw, where, most=_MOST_TEXT)
    return Version(value) if kind == "version" else value


def _capacity(raw: Any, where: str) -> Capacity:
    whole = table(raw, where) if isinstance(raw, Mapping) else {"value": raw}
    policy_raw = whole.get("requestPolicy")
    policy = None
    if policy_raw is not None:
        body = table(policy_raw, f"{where}.requestPolicy")
        limits = body.get("validRange")
        policy = RequestPolicy(
            default=optional_amount(body.get("default"), f"{where}.requestPolicy.default"),
            values=each(body.get("validValues"), f"{where}.requestPolicy.validValues", amount, most=64),
            valid_range=None if limits is None else _range(limits, f"{where}.requestPolicy.validRange"),
        )
    return Capacity(amount(whole.get("value"), f"{where}.value"), policy)


def _range(raw: Any, where: str) -> ValidRange:
    body = table(raw, where)
    step = optional_amount(body.get("step"), f"{where}.step")
    if step is not None and step.nanos == 0:
        raise Malformed(f"{where}.step: is zero")
    return ValidRange(
        minimum=optional_amount(body.get("min"), f"{where}.min"),
        maximum=optional_amount(body.get("max"), f"{where}.max"),
        step=step,
    )


def _counters(raw: Any, where: str) -> dict[str, Quantity]:
    counters = table(raw, where, most=256)
    return {name: amount(table(value, f"{where}[{name}]").get("value"), f"{where}[{name}]") for name, value in
            counters.items()}  # fmt: skip


def _counter_set(raw: Any, where: str) -> CounterSet:
    whole = table(raw, where)
    name = text(whole.get("name"), f"{where}.name", needed=True)
    return CounterSet(name, _counters(whole.get("counters"), f"{where}.counters"))


def _counter_use(raw: Any, where: str) -> CounterUse:
    whole = table(raw, where)
    name = text(whole.get("counterSet"), f"{where}.counterSet", needed=True)
    return CounterUse(name, _counters(whole.get("counters"), f"{where}.counters"))


def _taint(raw: Any, where: str) -> Taint:
    whole = table(raw, where)
    return Taint(*(text(whole.get(key), f"{where}.{key}") for key in ("key", "value", "effect")))


def _node_rule(raw: Mapping[str, Any], where: str) -> NodeRule:
    selector = raw.get("nodeSelector")
    terms = None
    if selector is not None:
        body = table(selector, f"{where}.nodeSelector")
        terms = each(body.get("nodeSelectorTerms"), f"{where}.nodeSelector.nodeSelectorTerms", _term, most=64)
    return NodeRule(
        name=text(raw.get("nodeName"), f"{where}.nodeName"),
        everywhere=boolean(raw.get("allNodes"), f"{where}.allNodes"),
        terms=terms,
    )


def _term(raw: Any, where: str) -> NodeTerm:
    whole = table(raw, where)
    return NodeTerm(
        expressions=each(whole.get("matchExpressions"), f"{where}.matchExpressions", _requirement, most=256),
        fields=each(whole.get("matchFields"), f"{where}.matchFields", _requirement, most=256),
    )


def _requirement(raw: Any, where: str) -> Requirement:
    whole = table(raw, where)
    values = tuple(text(value, f"{where}.values") for value in items(whole.get("values"), f"{where}.values"))
    key = text(whole.get("key"), f"{where}.key", most=2 * 253)
    return Requirement(key, text(whole.get("operator"), f"{where}.operator"), values)


# Claims and classes --------------------------------------------------------------------------------------------------


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
