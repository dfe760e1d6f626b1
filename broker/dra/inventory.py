"""Every device of a cluster with its state, kept up to date one event at a time.

Raw Kubernetes objects go in (from list-then-watch), device states come out. The rules are the scheduler's where they
say no, and stricter where it would say yes to something doubtful: only the newest generation of a pool counts, a pool
that is incomplete, contradictory or unreadable offers nothing, and whatever any claim holds is taken, whether or not
it is still published and whoever reserved it. Everything is judged pool by pool, so an event costs one pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.dra import pools as pooling
from broker.dra.adapters import identify, plugin_resources
from broker.dra.adapters.identity import Identity, raw, raw_capacity
from broker.dra.allocator import Unsatisfiable, allocate, taken_by
from broker.dra.availability import ALLOCATED, UNUSABLE, obstacle
from broker.dra.counters import Ledger
from broker.dra.declared import Declared, declared
from broker.dra.model import (
    Allocated,
    Allocation,
    Claim,
    Device,
    DeviceClass,
    DeviceId,
    Features,
    Node,
    PoolId,
    Result,
    Slice,
)
from broker.dra.normalise import read_claim, read_class, read_holding, read_node, read_slice
from broker.dra.pools import Published
from broker.dra.reading import Malformed, table

FREE, INCOMPLETE, STALE = "free", "incomplete", "stale"
SLICE, CLAIM, CLASS, NODE = "ResourceSlice", "ResourceClaim", "DeviceClass", "Node"


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
class _Holder:
    """A claim with an allocation."""

    name: str
    results: tuple[Result, ...]


@dataclass(frozen=True, eq=False)
class _NodeFacts:
    node: Node
    declared: Declared
    plugins: frozenset[str]  # extended resources that a device plugin offers there


class Inventory:
    """The devices of one cluster.

    Not safe for several threads. ``features`` are those of the cluster's scheduler.
    """

    def __init__(self, *, features: Features = Features()) -> None:  # noqa: B008
        self.features = features
        self._slices: dict[str, Slice] = {}
        self._by_pool: dict[PoolId, dict[str, Slice]] = {}
        self._holders: dict[str, _Holder] = {}
        self._held: dict[PoolId, dict[str, _Holder]] = {}
        self._classes: dict[str, DeviceClass] = {}
        self._nodes: dict[str, _NodeFacts] = {}
        self._pools_of_node: dict[str, set[PoolId]] = {}
        self._nodes_of_pool: dict[PoolId, set[str]] = {}
        self._published: dict[PoolId, Published] = {}
        self._states: dict[PoolId, tuple[DeviceState, ...]] = {}
        self._stale: set[PoolId] = set()  # pools to judge again before anything is read
        self._problems: dict[tuple[str, str], str] = {}

    # Events

    def put(self, kind: str, obj: object) -> None:
        """An object was added or changed. An unreadable one is remembered as a problem and changes nothing else."""
        key = _key(obj)
        self._problems.pop((kind, key), None)
        try:
            self._putters[kind](self, key, obj)
        except Malformed as error:
            self._problems[kind, key] = str(error)
            if kind != CLAIM:  # what a claim was seen to hold stays held until it is seen to let go
                self._remove(kind, key)

    def delete(self, kind: str, obj: object) -> None:
        """An object is gone."""
        key = _key(obj)
        self._problems.pop((kind, key), None)
        self._remove(kind, key)

    def replace(self, kind: str, objs: Iterable[object]) -> None:
        """What a fresh list of a kind says: all objects there are."""
        listed = list(objs)
        here = {_key(obj) for obj in listed}
        stores: dict[str, Mapping[str, object]] = {
            SLICE: self._slices,
            CLAIM: self._holders,
            CLASS: self._classes,
            NODE: self._nodes,
        }
        known = stores[kind]
        gone = [key for key in known if key not in here]
        gone += [key for owner, key in self._problems if owner == kind and key not in here]
        for key in gone:
            self._problems.pop((kind, key), None)
            self._remove(kind, key)
        for obj in listed:
            self.put(kind, obj)

    # Answers

    def devices(self) -> list[DeviceState]:
        """Every device, by driver, pool and name."""
        self._settle()
        return [state for pool in sorted(self._states) for state in self._states[pool]]

    def free(self) -> list[DeviceState]:
        """The devices that may be lent now."""
        return [state for state in self.devices() if state.state == FREE]

    def device(self, device: DeviceId) -> DeviceState | None:
        self._settle()
        pool = self._states.get(PoolId(device.driver, device.pool), ())
        return next((state for state in pool if state.name == device.device), None)

    def problems(self) -> list[str]:
        """What could not be read or believed: objects and whole pools."""
        self._settle()
        found = [f"{kind} {key}: {problem}" for (kind, key), problem in self._problems.items()]
        for pool_id, published in self._published.items():
            newest = published.newest
            if newest.state != pooling.READY:
                found.append(f"pool {pool_id}: {newest.state}: {newest.problem}")
        return sorted(found)

    def allocated(self) -> Allocated:
        """What the claims of the whole cluster take."""
        return _taken(self._holders.values())

    def allocate(
        self, claims: Sequence[object], node: str, *, new_share_id: Callable[[], str] | None = None
    ) -> list[Allocation] | Unsatisfiable:
        """What kube-scheduler would answer for these raw claims on that node (all together or none).

        Raises:
            Malformed: a claim cannot be read.
        """
        self._settle()
        facts = self._nodes.get(node)
        if facts is None:
            return Unsatisfiable((f"there is no node {node}",), error=True)
        extra: dict[str, Any] = {} if new_share_id is None else {"new_share_id": new_share_id}
        return allocate(
            claims=[read_claim(claim) for claim in claims],
            node=facts.node,
            pools=self._published.values(),
            allocated=self.allocated(),
            classes=self._classes,
            features=self.features,
            **extra,
        )

    # Taking objects in

    def _put_slice(self, key: str, obj: object) -> None:
        part = read_slice(obj)
        self._remove(SLICE, key)
        self._slices[key] = part
        self._by_pool.setdefault(part.pool, {})[key] = part
        self._touch(part.pool, publish=True)

    def _put_claim(self, key: str, obj: object) -> None:
        results = read_holding(obj)
        self._remove(CLAIM, key)
        if not results:
            return
        holder = self._holders[key] = _Holder(key, results)
        for pool in {PoolId(result.id.driver, result.id.pool) for result in results}:
            self._held.setdefault(pool, {})[key] = holder
            self._touch(pool)

    def _put_class(self, key: str, obj: object) -> None:
        self._classes[key] = read_class(obj)

    def _put_node(self, key: str, obj: object) -> None:
        node = read_node(obj)
        body = table(obj, "Node", most=64)
        provider = table(body.get("spec"), "spec").get("providerID")
        there = table(table(body.get("status"), "status").get("allocatable"), "status.allocatable")
        self._nodes[key] = _NodeFacts(
            node,
            declared(node.labels, provider_id=provider if isinstance(provider, str) else ""),
            frozenset(name for name, amount in there.items() if str(amount) not in ("0", "")),
        )
        for pool in self._pools_of_node.get(key, ()):
            self._touch(pool)

    def _remove(self, kind: str, key: str) -> None:
        if kind == SLICE and key in self._slices:
            part = self._slices.pop(key)
            left = self._by_pool[part.pool]
            del left[key]
            if not left:
                del self._by_pool[part.pool]
            self._touch(part.pool, publish=True)
        elif kind == CLAIM and key in self._holders:
            holder = self._holders.pop(key)
            for pool in {PoolId(result.id.driver, result.id.pool) for result in holder.results}:
                left_holders = self._held[pool]
                del left_holders[key]
                if not left_holders:
                    del self._held[pool]
                self._touch(pool)
        elif kind == CLASS:
            self._classes.pop(key, None)
        elif kind == NODE and self._nodes.pop(key, None) is not None:
            for pool in self._pools_of_node.get(key, ()):
                self._touch(pool)

    _putters: Mapping[str, Callable[[Inventory, str, object], None]] = {
        SLICE: _put_slice,
        CLAIM: _put_claim,
        CLASS: _put_class,
        NODE: _put_node,
    }

    # Judging

    def _touch(self, pool: PoolId, *, publish: bool = False) -> None:
        self._stale.add(pool)
        if publish:
            self._published.pop(pool, None)

    def _settle(self) -> None:
        for pool_id in self._stale:
            slices = self._by_pool.get(pool_id)
            if slices and pool_id not in self._published:
                self._published[pool_id] = pooling.publish(pool_id, slices.values(), features=self.features)
            states = tuple(self._judge(pool_id))
            self._link(pool_id, {state.node for state in states if state.node is not None})
            if states:
                self._states[pool_id] = states
            else:
                self._states.pop(pool_id, None)
        self._stale.clear()

    def _link(self, pool: PoolId, nodes: set[str]) -> None:
        for node in self._nodes_of_pool.get(pool, set()) - nodes:
            self._pools_of_node[node].discard(pool)
        for node in nodes:
            self._pools_of_node.setdefault(node, set()).add(pool)
        self._nodes_of_pool[pool] = nodes

    def _judge(self, pool_id: PoolId) -> Iterator[DeviceState]:
        holders = self._held.get(pool_id, {})
        published = self._published.get(pool_id)
        allocated = _taken(holders.values())
        holds: dict[DeviceId, list[str]] = {}
        for holder in holders.values():
            for result in holder.results:
                if not result.admin:
                    holds.setdefault(result.id, []).append(holder.name)
        found: dict[str, DeviceState] = {}
        if published is not None:
            found = {state.name: state for state in self._published_states(published, allocated, holds)}
            found = {state.name: state for state in _together(found.values())}
        for device_id, names in holds.items():
            if PoolId(device_id.driver, device_id.pool) == pool_id and device_id.device not in found:
                found[device_id.device] = _unpublished(device_id, names)
        for name in sorted(found):
            yield found[name]

    def _published_states(
        self, published: Published, allocated: Allocated, holds: Mapping[DeviceId, Sequence[str]]
    ) -> Iterator[DeviceState]:
        newest = published.newest
        ledger = Ledger(allocated)
        current: set[str] = set()
        for part in newest.slices:
            for device in part.devices:
                if device.id.device in current:
                    continue  # the pool is invalid for it; one line per name is enough
                current.add(device.id.device)
                state, reason = _judge_device(device, newest, allocated, ledger, self.features)
                yield self._state(device, part, state, reason, holds)
        for part in published.slices:
            for device in part.devices if part.generation < newest.generation else ():
                if device.id.device not in current:
                    current.add(device.id.device)
                    reason = f"published in generation {part.generation}, gone from {newest.generation}"
                    yield self._state(device, part, STALE, reason, holds)

    def _state(
        self, device: Device, part: Slice, state: str, reason: str, holds: Mapping[DeviceId, Sequence[str]]
    ) -> DeviceState:
        identity = _identity(device)
        node = (device.nodes.name if part.per_device else part.nodes.name) or None
        facts = self._nodes.get(node) if node else None
        names = sorted(holds.get(device.id, ()))
        if names and state in (FREE, ALLOCATED):
            state = ALLOCATED
            more = not device.shareable and len(names) > 1
            reason = f"two claims hold it: {', '.join(names)}" if more else f"allocated to {', '.join(names)}"
        elif state == FREE and identity.excluded_because:
            state, reason = UNUSABLE, identity.excluded_because
        elif state == FREE and facts is not None:
            doubled = facts.plugins.intersection(plugin_resources(device.id.driver))
            if doubled:
                state, reason = UNUSABLE, f"a device plugin hands out the same hardware as {min(doubled)}"
        return DeviceState(
            driver=device.id.driver,
            pool=device.id.pool,
            name=device.id.device,
            node=node,
            state=state,
            reason=reason,
            claim=names[0] if names else None,
            attributes=_raw_attributes(device),
            capacity=_raw_capacity(device),
            identity=identity,
            declared=facts.declared if facts is not None else Declared(),
        )


def _judge_device(
    device: Device, pool: pooling.Pool, allocated: Allocated, ledger: Ledger, features: Features
) -> tuple[str, str]:
    if pool.state == pooling.INCOMPLETE:
        return INCOMPLETE, f"the pool is incomplete: {pool.problem}"
    if pool.state != pooling.READY:
        return UNUSABLE, f"the pool is invalid: {pool.problem}"
    return obstacle(device, pool, allocated=allocated, ledger=ledger, features=features) or (FREE, "")


def _together(states: Iterable[DeviceState]) -> list[DeviceState]:
    """What devices of one pool mean for each other: one hardware under two names, one pin for two, whole nodes."""
    known = list(states)
    pins: dict[tuple[str | None, str], int] = {}
    taken: dict[tuple[str | None, str], DeviceState] = {}
    broken_nodes: dict[str | None, DeviceState] = {}
    for state in known:
        if state.pin is not None:
            pins[state.node, state.pin] = pins.get((state.node, state.pin), 0) + 1
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
            elif state.pin is not None and pins[state.node, state.pin] > 1:
                changed = replace(
                    state, state=UNUSABLE, reason="a neighbour publishes the same, so neither can be held"
                )
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


def _taken(holders: Iterable[_Holder]) -> Allocated:
    return taken_by(Claim("", holder.name, allocation=Allocation(holder.results)) for holder in holders)


def _identity(device: Device) -> Identity:
    made: Identity | None = device.cache.get("identity")
    if made is None:
        made = device.cache["identity"] = identify(device)
    return made


def _raw_attributes(device: Device) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] | None = device.cache.get("raw")
    if made is None:
        made = device.cache["raw"] = {name: raw(value) for name, value in device.attributes.items()}
    return made


def _raw_capacity(device: Device) -> dict[str, dict[str, Any]]:
    return {name: raw_capacity(value) for name, value in device.capacity.items()}


def _key(obj: object) -> str:
    """``namespace/name`` or ``name`` of a raw object, as far as it has them."""
    metadata = obj.get("metadata") if isinstance(obj, Mapping) else None
    if not isinstance(metadata, Mapping):
        return ""
    namespace, name = (str(metadata.get(part) or "")[:253] for part in ("namespace", "name"))
    return f"{namespace}/{name}" if namespace else name
