"""What the published slices, the claims and the nodes say about the devices of one pool.

Pure: ``judge_pool`` is a function of its arguments, and the inventory is nothing but remembering its answers. The rules
are the scheduler's where they say no, and stricter where it would say yes to something doubtful.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.dra import pools as pooling
from broker.dra.adapters import identify, plugin_resources
from broker.dra.adapters.identity import Identity, raw_attributes, raw_capacity
from broker.dra.allocator import taken_by
from broker.dra.availability import ALLOCATED, UNUSABLE, obstacle
from broker.dra.counters import Key, Ledger, available, consumption
from broker.dra.declared import Declared, declared
from broker.dra.model import Allocated, Allocation, Claim, Device, DeviceId, Features, Node, PoolId, Result, Slice
from broker.dra.normalise import read_node
from broker.dra.pools import Published
from broker.dra.reading import items, table

FREE, INCOMPLETE, STALE = "free", "incomplete", "stale"
_NOTHING: Mapping[Key, int] = {}


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device: what it is, and why it can or cannot be lent right now.

    Attributes:
        state: free, allocated, tainted, incomplete, unusable or stale.
        reason: in words, for people; empty when free.
        node: where it sits; None for a device that a network reaches.
        claim: ``namespace/name`` of the claim that holds it, if one does.
        attributes, capacity: as published, in the form of resource.k8s.io/v1.
        identity: what its driver's adapter made of it.
        declared: what its node's labels declare.
        consumes, room: of the counters that it shares with its pool (in billionths) what it takes while in use, and
            what is left of all of them now. Two free devices need not be free together: see ``together``.
    """

    driver: str
    pool: str
    name: str
    node: str | None
    state: str
    reason: str
    claim: str | None
    attributes: Mapping[str, Mapping[str, Any]]
    capacity: Mapping[str, Mapping[str, Any]]
    identity: Identity
    declared: Declared = field(default_factory=Declared)
    consumes: Mapping[Key, int] = field(default_factory=dict)
    room: Mapping[Key, int] = field(default_factory=dict)

    @property
    def id(self) -> DeviceId:
        return DeviceId(self.driver, self.pool, self.name)

    @property
    def kind(self) -> str:
        return self.identity.kind

    @property
    def key(self) -> str:
        return self.identity.unique_key

    @property
    def pin(self) -> str | None:
        """CEL that, with the node, selects exactly this device."""
        return self.identity.pin_cel


@dataclass(frozen=True, eq=False)
class Holder:
    """A claim with an allocation."""

    name: str
    results: tuple[Result, ...]


@dataclass(frozen=True, eq=False)
class NodeFacts:
    """What of a node concerns its devices."""

    node: Node
    declared: Declared
    plugins: frozenset[str]  # extended resources that a device plugin offers there
    trouble: str  # why no pod can be started there; empty when all is well


def node_facts(obj: object) -> NodeFacts:
    """Read a raw Node; raises Malformed."""
    node = read_node(obj)
    body = table(obj, "Node", most=64)
    provider = table(body.get("spec"), "spec").get("providerID")
    there = table(table(body.get("status"), "status").get("allocatable"), "status.allocatable")
    return NodeFacts(
        node,
        declared(node.labels, provider_id=provider if isinstance(provider, str) else ""),
        frozenset(name for name, amount in there.items() if str(amount) not in ("0", "")),
        _node_trouble(body),
    )


@dataclass(frozen=True, eq=False)
class _Judge:
    """One pool at one moment."""

    published: Published | None
    holds: Mapping[DeviceId, Sequence[str]]
    allocated: Allocated
    nodes: Mapping[str, NodeFacts]
    features: Features

    def states(self) -> Iterator[DeviceState]:
        found: dict[str, DeviceState] = {}
        if self.published is not None:
            found = {state.name: state for state in self._published_states(self.published)}
            found = {state.name: state for state in _together(found.values())}
        for device, names in self.holds.items():
            if device.device not in found:
                found[device.device] = _unpublished(device, names)
        for name in sorted(found):
            yield found[name]

    def _published_states(self, published: Published) -> Iterator[DeviceState]:
        newest = published.newest
        ledger = Ledger(self.allocated)
        room = available(newest, self.allocated) if newest.counter_sets else _NOTHING
        current: set[str] = set()
        for part in newest.slices:
            for device in part.devices:
                if device.id.device in current:
                    continue  # the pool is invalid for it; one line a name is enough
                current.add(device.id.device)
                state, reason = _judge_device(device, newest, self.allocated, ledger, self.features)
                yield self._state(device, part, room, state, reason)
        for part in published.slices:
            for device in part.devices if part.generation < newest.generation else ():
                if device.id.device not in current:
                    current.add(device.id.device)
                    reason = f"published in generation {part.generation}, gone from {newest.generation}"
                    yield self._state(device, part, room, STALE, reason)

    def _state(self, device: Device, part: Slice, room: Mapping[Key, int], state: str, reason: str) -> DeviceState:
        identity = _identity(device)
        node = (device.nodes.name if part.per_device else part.nodes.name) or None
        facts = self.nodes.get(node) if node else None
        names = sorted(self.holds.get(device.id, ()))
        if names:  # what a claim holds is taken, whatever its pool or its taints look like now
            doubled = not device.shareable and len(names) > 1
            told = f"two claims hold it: {', '.join(names)}" if doubled else f"allocated to {', '.join(names)}"
            state, reason = ALLOCATED, told if state in (FREE, ALLOCATED) else f"{told}; {reason}"
        elif state == FREE and identity.excluded_because:
            state, reason = UNUSABLE, identity.excluded_because
        elif state == FREE and node is not None:
            trouble = _trouble_there(node, facts, device.id.driver)
            state, reason = (UNUSABLE, trouble) if trouble else (FREE, "")
        return DeviceState(
            driver=device.id.driver,
            pool=device.id.pool,
            name=device.id.device,
            node=node,
            state=state,
            reason=reason,
            claim=names[0] if names else None,
            attributes=raw_attributes(device),
            capacity=raw_capacity(device),
            identity=identity,
            declared=facts.declared if facts is not None else Declared(),
            consumes=consumption(device) if device.consumes else _NOTHING,
            room=room if device.consumes else _NOTHING,
        )


def judge_pool(
    pool_id: PoolId,
    *,
    published: Published | None,
    holders: Iterable[Holder],
    nodes: Mapping[str, NodeFacts],
    features: Features,
) -> tuple[DeviceState, ...]:
    """The state of every device of a pool, published or held.

    Args:
        pool_id: which pool.
        published: its slices; None when there are none.
        holders: the claims that hold devices of this pool (what else they hold doesn't matter).
        nodes: the cluster's nodes by name.
        features: gates of the cluster's scheduler.
    """
    known = tuple(holders)
    holds: dict[DeviceId, list[str]] = {}
    for holder in known:
        for result in holder.results:
            if not result.admin and pool_id == (result.id.driver, result.id.pool):
                holds.setdefault(result.id, []).append(holder.name)
    return tuple(_Judge(published, holds, taken(known), nodes, features).states())


def taken(holders: Iterable[Holder]) -> Allocated:
    """What claims take together."""
    return taken_by(Claim("", holder.name, allocation=Allocation(holder.results)) for holder in holders)


def _judge_device(
    device: Device, pool: pooling.Pool, allocated: Allocated, ledger: Ledger, features: Features
) -> tuple[str, str]:
    if pool.state == pooling.INCOMPLETE:
        return INCOMPLETE, f"the pool is incomplete: {pool.problem}"
    if pool.state != pooling.READY:
        return UNUSABLE, f"the pool is invalid: {pool.problem}"
    return obstacle(device, pool, allocated=allocated, ledger=ledger, features=features) or (FREE, "")


def _together(states: Iterable[DeviceState]) -> list[DeviceState]:
    """What devices of one pool mean for each other: one hardware under two names, whole nodes."""
    known = list(states)
    taken: dict[tuple[str | None, str], DeviceState] = {}
    broken_nodes: dict[str | None, DeviceState] = {}
    for state in known:
        if state.state == ALLOCATED and state.identity.exclusive and state.identity.partition_of:
            taken[state.node, state.identity.partition_of] = state
        if state.identity.lendable_unit == "node" and state.state != FREE:
            broken_nodes.setdefault(state.node, state)
    result = []
    for state in known:
        changed = state
        if state.state == FREE:
            twin = taken.get((state.node, state.identity.partition_of)) if state.identity.exclusive else None
            whole = broken_nodes.get(state.node) if state.identity.lendable_unit == "node" else None
            if twin is not None:
                changed = replace(state, state=ALLOCATED, reason=f"{twin.name} is the same hardware: {twin.reason}")
            elif whole is not None:
                changed = replace(
                    state, state=UNUSABLE, reason=f"only a whole node is lent, {whole.name}: {whole.reason}"
                )
        result.append(changed)
    return result


def _unpublished(device: DeviceId, holders: Sequence[str]) -> DeviceState:
    """A device that a claim holds and no slice shows: drivers come and go, allocations stay."""
    return DeviceState(
        *device,
        node=None,
        state=ALLOCATED,
        reason=f"allocated to {', '.join(sorted(holders))}; not published now",
        claim=min(holders),
        attributes={},
        capacity={},
        identity=Identity("", device.driver, None),
    )


def _trouble_there(node: str, facts: NodeFacts | None, driver: str) -> str:
    """Why a device of this driver cannot be used on its node; empty when it can."""
    if facts is None:
        return f"node {node} is not known"
    doubled = facts.plugins.intersection(plugin_resources(driver))
    if doubled:
        return f"a device plugin hands out the same hardware as {min(doubled)}"
    return facts.trouble


def _node_trouble(node: Mapping[str, Any]) -> str:
    if table(node.get("spec"), "spec").get("unschedulable"):
        return "its node is cordoned"
    for condition in items(table(node.get("status"), "status").get("conditions"), "status.conditions"):
        if isinstance(condition, Mapping) and condition.get("type") == "Ready" and condition.get("status") != "True":
            return "its node is not ready"
    return ""


def _identity(device: Device) -> Identity:
    made: Identity | None = device.cache.get("identity")
    if made is None:
        made = device.cache["identity"] = identify(device)
    return made
