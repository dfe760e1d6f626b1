"""The nouns of Dynamic Resource Allocation, normalised: one shape, whatever API version they were read from.

Everything here is frozen and holds only what decides an allocation (Kubernetes ``resource.k8s.io``, KEP-4381, 4815,
5055, 5075, 5007). ``normalise.py`` makes these from raw objects; nothing else does, outside tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker.dra.quantity import Quantity

MAX_DEVICES_PER_CLAIM = 32


@dataclass(frozen=True, slots=True)
class Version:
    """An attribute value of the kind ``version``; the text is as published, valid or not."""

    text: str


Scalar = bool | int | str | Version
# None stands for an attribute whose kind is not known here: it is there, and no selector can be evaluated on it.
AttributeValue = Scalar | tuple[Scalar, ...] | None


class DeviceId(NamedTuple):
    """The name of a device in its cluster."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.pool}/{self.device}"


class PoolId(NamedTuple):
    """Two drivers may both name a pool after a node: only both names together mean one pool."""

    driver: str
    pool: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.pool}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a node selector."""

    key: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """Requirements on labels and on fields (only ``metadata.name``); all must hold."""

    expressions: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class NodeRule:
    """On which nodes a slice or a device can be used: one name, all, or a selector (any term of ``terms``)."""

    name: str = ""
    everywhere: bool = False
    terms: tuple[NodeTerm, ...] | None = None

    @property
    def known(self) -> bool:
        return bool(self.name) or self.everywhere or self.terms is not None


@dataclass(frozen=True, slots=True)
class Node:
    """What of a node decides: its name and its labels."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class TaintRule:
    """An administrator's taint (DeviceTaintRule) on the devices that its names mean; an empty name means any."""

    driver: str
    pool: str
    device: str
    taint: Taint


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class ValidRange:
    minimum: Quantity | None
    maximum: Quantity | None
    step: Quantity | None


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """How a request for part of a capacity is rounded (KEP-5075)."""

    default: Quantity | None
    values: tuple[Quantity, ...]
    valid_range: ValidRange | None


@dataclass(frozen=True, slots=True)
class Capacity:
    value: Quantity
    policy: RequestPolicy | None = None


@dataclass(frozen=True, slots=True)
class CounterSet:
    """Counters shared by the devices of one pool (KEP-4815)."""

    name: str
    counters: Mapping[str, Quantity]


@dataclass(frozen=True, slots=True)
class CounterUse:
    """What a device takes from one counter set while it is in use."""

    counter_set: str
    counters: Mapping[str, Quantity]


@dataclass(frozen=True, eq=False)
class DeviceView:
    """What a CEL selector sees of a device. Attribute and capacity names are as published, qualified or not."""

    driver: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    capacity: Mapping[str, Quantity] = field(default_factory=dict)
    shareable: bool = False
    cache: dict[str, Any] = field(default_factory=dict, repr=False)  # the CEL module keeps its form of the view here


@dataclass(frozen=True, eq=False)
class Device:
    """One device of a slice."""

    id: DeviceId
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    capacity: Mapping[str, Capacity] = field(default_factory=dict)
    consumes: tuple[CounterUse, ...] = ()
    taints: tuple[Taint, ...] = ()
    nodes: NodeRule = NodeRule()  # only where the slice leaves the choice to its devices
    binds_to_node: bool = False
    binding_conditions: tuple[str, ...] = ()
    binding_failure_conditions: tuple[str, ...] = ()
    shareable: bool = False
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def view(self) -> DeviceView:
        """The device as selectors see it; made once."""
        made: DeviceView | None = self.cache.get("view")
        if made is None:
            amounts = {name: capacity.value for name, capacity in self.capacity.items()}
            made = self.cache["view"] = DeviceView(self.id.driver, self.attributes, amounts, self.shareable)
        return made

    def attribute(self, name: str) -> AttributeValue:
        """The value under a fully qualified name; the driver's own domain may have been left out by the driver."""
        if name in self.attributes:
            return self.attributes[name]
        domain, _, short = name.partition("/")
        return self.attributes.get(short) if short and domain == self.id.driver else None


@dataclass(frozen=True, eq=False)
class Slice:
    """One ResourceSlice. With a ``problem`` it could not be read, and its pool offers nothing."""

    name: str
    pool: PoolId
    generation: int
    slice_count: int
    nodes: NodeRule = NodeRule()
    per_device: bool = False
    devices: tuple[Device, ...] = ()
    counter_sets: tuple[CounterSet, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """Opaque parameters for a driver: ``raw`` is handed on as it is; no names means all requests."""

    requests: tuple[str, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DeviceClass:
    name: str
    selectors: tuple[str | None, ...] = ()  # None: a selector of a kind that is not known here
    config: tuple[Config, ...] = ()


@dataclass(frozen=True, eq=False)
class Ask:
    """What one request, or one alternative of it, wants."""

    name: str
    class_name: str
    selectors: tuple[str | None, ...] = ()
    mode: str = "ExactCount"
    count: int = 1
    admin: bool | None = None
    tolerations: tuple[Toleration, ...] = ()
    raw_tolerations: tuple[Mapping[str, Any], ...] = ()
    capacity: Mapping[str, Quantity] | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A request: one ask, or with ``prioritised`` several in order of preference (``firstAvailable``)."""

    name: str
    asks: tuple[Ask, ...]
    prioritised: bool = False

    def full_name(self, ask: Ask) -> str:
        """How an allocation result names the request it is for."""
        return f"{self.name}/{ask.name}" if self.prioritised else self.name


@dataclass(frozen=True, slots=True)
class Constraint:
    kind: str  # "match", "distinct", or "" for one that is not known here
    attribute: str
    requests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One allocated device of a claim."""

    request: str
    id: DeviceId
    admin: bool | None = None
    share_id: str | None = None
    consumed: Mapping[str, Quantity] = field(default_factory=dict)
    raw_tolerations: tuple[Mapping[str, Any], ...] = ()
    binding_conditions: tuple[str, ...] = ()
    binding_failure_conditions: tuple[str, ...] = ()

    def to_raw(self) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "request": self.request,
            "driver": self.id.driver,
            "pool": self.id.pool,
            "device": self.id.device,
        }
        if self.admin:
            raw["adminAccess"] = True
        if self.raw_tolerations:
            raw["tolerations"] = [dict(toleration) for toleration in self.raw_tolerations]
        if self.share_id:
            raw["shareID"] = self.share_id
        if self.consumed:
            raw["consumedCapacity"] = {name: str(amount) for name, amount in self.consumed.items()}
        if self.binding_conditions:
            raw["bindingConditions"] = list(self.binding_conditions)
        if self.binding_failure_conditions:
            raw["bindingFailureConditions"] = list(self.binding_failure_conditions)
        return raw


@dataclass(frozen=True, eq=False)
class Allocation:
    """The answer for one claim; ``to_raw`` is what goes under ``status.allocation``."""

    results: tuple[Result, ...]
    node_selector: Mapping[str, Any] | None = None
    config: tuple[Mapping[str, Any], ...] = ()

    def to_raw(self) -> dict[str, Any]:
        devices: dict[str, Any] = {"results": [result.to_raw() for result in self.results]}
        if self.config:
            devices["config"] = [dict(entry) for entry in self.config]
        raw: dict[str, Any] = {"devices": devices}
        if self.node_selector is not None:
            raw["nodeSelector"] = dict(self.node_selector)
        return raw


@dataclass(frozen=True, eq=False)
class Claim:
    namespace: str
    name: str
    uid: str = ""
    requests: tuple[Request, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    config: tuple[Config, ...] = ()
    allocation: Allocation | None = None
    reserved_for: tuple[str, ...] = ()  # uids of the consumers

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, eq=False)
class Allocated:
    """What is taken already: whole devices, and amounts of devices that several claims may share."""

    dedicated: frozenset[DeviceId] = frozenset()
    shared: frozenset[DeviceId] = frozenset()
    consumed: Mapping[DeviceId, Mapping[str, Quantity]] = field(default_factory=dict)

    def in_use(self, device: DeviceId) -> bool:
        return device in self.dedicated or device in self.shared or device in self.consumed


@dataclass(frozen=True, slots=True)
class Features:
    """The scheduler's feature gates that change answers; the defaults are those of Kubernetes 1.36."""

    admin_access: bool = True
    prioritized_list: bool = True
    partitionable_devices: bool = True
    device_taints: bool = True
    binding_conditions: bool = True
    consumable_capacity: bool = True
    list_attributes: bool = False
    # Not a gate: until 1.36 a pool with counters concerns every node, so that mode "All" fails everywhere while another
    # node's pool is incomplete; since 1.37 only a pool with something for the node does.
    foreign_counters: bool = True
