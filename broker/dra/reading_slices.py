"""Raw ResourceSlices, nodes and taint rules in, nouns of ``model.py`` out (see ``normalise.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.dra.model import (
    AttributeValue,
    Capacity,
    CounterSet,
    CounterUse,
    Device,
    DeviceId,
    DeviceView,
    Node,
    NodeRule,
    NodeTerm,
    PoolId,
    RequestPolicy,
    Requirement,
    Slice,
    Taint,
    TaintRule,
    ValidRange,
    Version,
)
from broker.dra.quantity import Quantity
from broker.dra.reading import Malformed, amount, boolean, each, integer, items, optional_amount, table, text, texts

_MOST_TEXT = 256  # of an attribute; Kubernetes allows 64


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


def read_node(raw: object) -> Node:
    """A Node, as far as its name and labels go."""
    metadata = table(table(raw, "Node", most=64).get("metadata"), "metadata")
    labels = table(metadata.get("labels"), "metadata.labels", most=4096)
    return Node(
        name=text(metadata.get("name"), "metadata.name", needed=True),
        labels={key: text(value, f"metadata.labels[{key}]") for key, value in labels.items()},
    )


def read_taint_rule(raw: object) -> TaintRule:
    """A DeviceTaintRule. One without a selector means every device: that is what schedulers make of it."""
    spec = table(table(raw, "DeviceTaintRule").get("spec"), "spec")
    selector = table(spec.get("deviceSelector"), "spec.deviceSelector")
    names = [text(selector.get(key), f"spec.deviceSelector.{key}") for key in ("driver", "pool", "device")]
    return TaintRule(names[0], names[1], names[2], _taint(spec.get("taint"), "spec.taint"))


def read_attributes(raw: object, where: str = "attributes") -> dict[str, AttributeValue]:
    """Device attributes as Kubernetes writes them (``{"type": {"string": "gpu"}}``)."""
    return {name: _attribute(value, f"{where}[{name}]") for name, value in table(raw, where, most=256).items()}


def read_view(*, driver: str, attributes: object, capacity: object, shareable: bool = False) -> DeviceView:
    """What selectors see of devices of a kind, from attributes and capacity as resource.k8s.io/v1 writes them."""
    amounts = table(capacity, "capacity", most=256)
    return DeviceView(
        driver=driver,
        attributes=read_attributes(attributes),
        capacity={name: _capacity(value, f"capacity[{name}]").value for name, value in amounts.items()},
        shareable=shareable,
    )


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
