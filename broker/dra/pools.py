"""From slices to pools: which generation counts, whether it is whole, and whether it can be believed.

A pool is published in several slices (KEP-4381, "ResourceSlice"). It is complete when exactly as many slices of a
generation exist as they say; it is invalid when device names repeat, counter sets repeat or are referred to in vain,
slices contradict each other, or a slice cannot be read. From a pool that is not ready nothing is allocated.

Two judgements are made here, and they differ on purpose. ``newest`` is ours, for what we offer: the newest generation
wherever it was published, all of it, nothing older. ``on_node`` is the scheduler's, for what it would allocate: the
newest generation *that has something for the node*, even where a newer one exists elsewhere, as long as what the node
sees is as many slices as promised. Such a device may be gone; the scheduler would hand it out, we never lend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from broker.dra import nodes
from broker.dra.model import CounterSet, Device, Features, Node, NodeRule, PoolId, Slice

READY, INCOMPLETE, INVALID = "ready", "incomplete", "invalid"


@dataclass(frozen=True, eq=False)
class Pool:
    """One generation of a pool, judged."""

    id: PoolId
    generation: int
    state: str
    problem: str
    slices: tuple[Slice, ...]  # by name
    counter_sets: Mapping[str, CounterSet]

    @property
    def devices(self) -> Iterable[Device]:
        return (device for part in self.slices for device in part.devices)


@dataclass(frozen=True, eq=False)
class Published:
    """Everything published under the name of one pool: slices of all generations, by name."""

    id: PoolId
    slices: tuple[Slice, ...]
    features: Features
    judged: dict[tuple[tuple[int, ...], tuple[int, ...] | None], Pool] = field(default_factory=dict, repr=False)

    @cached_property
    def home(self) -> str:
        """The one node that all slices are for; empty when there is no such node."""
        names = {part.nodes.name for part in self.slices}
        return names.pop() if len(names) == 1 else ""

    @cached_property
    def abroad(self) -> NodePool | None:
        """How a pool with a home looks from every other node."""
        return _look(self, Node(""), self.features)

    @property
    def newest(self) -> Pool:
        """The newest generation, judged strictly: the only one whose devices may be offered."""
        generation = max(part.generation for part in self.slices)
        return self.judge(tuple(i for i, part in enumerate(self.slices) if part.generation == generation))

    def judge(self, chosen: tuple[int, ...], *, visible: tuple[int, ...] | None = None) -> Pool:
        """The pool that these slices, all of one generation, make; judgements are kept.

        With ``visible`` slices it is judged as the scheduler judges it for a node that sees those; without, strictly.
        """
        made = self.judged.get((chosen, visible))
        if made is None:
            parts = [self.slices[index] for index in chosen]
            seen = None if visible is None else [self.slices[index] for index in visible]
            made = self.judged[chosen, visible] = _judge(self.id, parts, seen, self.features)
        return made


@dataclass(frozen=True, eq=False)
class Candidate:
    """A device that can be used on the node in question, with where it came from."""

    device: Device
    pool: Pool
    rule: NodeRule  # which nodes may use it
    on_node: bool  # false for a device of a per-device slice that names other nodes


@dataclass(frozen=True, eq=False)
class NodePool:
    """A pool as one node sees it."""

    pool: Pool
    candidates: tuple[Candidate, ...] = ()


def assemble(slices: Iterable[Slice], *, features: Features = Features()) -> dict[PoolId, Published]:  # noqa: B008
    """All pools that the slices make."""
    grouped: dict[PoolId, list[Slice]] = {}
    for part in slices:
        grouped.setdefault(part.pool, []).append(part)
    return {pool_id: publish(pool_id, parts, features=features) for pool_id, parts in grouped.items()}


def publish(pool_id: PoolId, slices: Iterable[Slice], *, features: Features = Features()) -> Published:  # noqa: B008
    """One pool from its slices of all generations (at least one)."""
    return Published(pool_id, tuple(sorted(slices, key=lambda part: part.name)), features)


def on_node(pools: Iterable[Published], node: Node, *, features: Features = Features()) -> list[NodePool]:  # noqa: B008
    """The pools that matter on a node, in the order in which the scheduler tries them.

    Pools without binding conditions come first, then by driver and pool name. A slice matters when it is for the node,
    or when it holds counters, which concern every node.
    """
    seen = [view for view in (_view(pool, node, features) for pool in pools) if view is not None]
    seen.sort(key=lambda view: (any(c.device.binding_conditions for c in view.candidates), view.pool.id))
    return seen


def _view(published: Published, node: Node, features: Features) -> NodePool | None:
    if published.home not in ("", node.name) and features == published.features:
        return published.abroad
    return _look(published, node, features)


def _look(published: Published, node: Node, features: Features) -> NodePool | None:
    try:
        relevant = {i: part for i, part in enumerate(published.slices) if _matters(part, node, features)}
        if not relevant:
            return None
        generation = max(part.generation for part in relevant.values())
        relevant = {i: part for i, part in relevant.items() if part.generation == generation}
        if not (features.foreign_counters or any(_is_for(part, node) for part in relevant.values())):
            return None
        seen = tuple(relevant)
        pool = published.judge(seen, visible=seen)
        if pool.state == INCOMPLETE:
            if any(part.generation > generation for part in published.slices):
                return None  # it is being replaced, and the new generation has nothing for this node
            every = tuple(i for i, part in enumerate(published.slices) if part.generation == generation)
            pool = published.judge(every, visible=seen)
        if pool.state != READY:
            return NodePool(pool)
        return NodePool(pool, tuple(c for part in relevant.values() for c in _candidates(part, pool, node)))
    except nodes.BadNodeSelector as error:
        return NodePool(_broken(published, f"node selector: {error}"))


def _matters(part: Slice, node: Node, features: Features) -> bool:
    if not features.partitionable_devices and (part.per_device or part.counter_sets):
        return False
    return bool(part.counter_sets) or _is_for(part, node)


def _is_for(part: Slice, node: Node) -> bool:
    """Whether the node may use devices of the slice; one that cannot be read might be for any node."""
    if part.nodes.known:
        return nodes.matches(part.nodes, node)
    if part.per_device:
        return any([nodes.matches(device.nodes, node) for device in part.devices])
    return bool(part.problem)


def _candidates(part: Slice, pool: Pool, node: Node) -> Iterable[Candidate]:
    if part.nodes.known:
        if part.counter_sets and not nodes.matches(part.nodes, node):
            return
        for device in part.devices:
            yield Candidate(device, pool, part.nodes, True)
    elif part.per_device:
        for device in part.devices:
            yield Candidate(device, pool, device.nodes, nodes.matches(device.nodes, node))


def _judge(pool_id: PoolId, parts: list[Slice], visible: list[Slice] | None, features: Features) -> Pool:
    counter_sets = {one.name: one for part in parts for one in part.counter_sets}
    state, problem = _state(parts, visible, counter_sets, features)
    return Pool(pool_id, parts[0].generation, state, problem, tuple(parts), counter_sets)


def _broken(published: Published, problem: str) -> Pool:
    newest = published.newest
    return Pool(newest.id, newest.generation, INVALID, problem, newest.slices, newest.counter_sets)


def _state(
    parts: list[Slice], visible: list[Slice] | None, counter_sets: Mapping[str, CounterSet], features: Features
) -> tuple[str, str]:
    unreadable = next((part for part in parts if part.problem), None)
    if unreadable is not None:
        return INVALID, f"slice {unreadable.name} cannot be read: {unreadable.problem}"
    promised = {part.slice_count for part in parts}
    if visible is None and len(promised) > 1:
        return INVALID, f"slices of one generation disagree on how many there are: {sorted(promised)}"
    if len(parts) != parts[0].slice_count:
        return INCOMPLETE, f"{len(parts)} of {parts[0].slice_count} slices of generation {parts[0].generation}"
    seen: set[str] = set()
    for device in (device for part in (parts if visible is None else visible) for device in part.devices):
        if device.id.device in seen:
            return INVALID, f"device name {device.id.device} is used twice"
        seen.add(device.id.device)
    problem = _counter_problem(parts, counter_sets) if features.partitionable_devices else ""
    return (INVALID, problem) if problem else (READY, "")


def _counter_problem(parts: list[Slice], counter_sets: Mapping[str, CounterSet]) -> str:
    if sum(len(part.counter_sets) for part in parts) != len(counter_sets):
        return "a counter set name is used twice"
    for device in (device for part in parts for device in part.devices):
        for use in device.consumes:
            known = counter_sets.get(use.counter_set)
            if known is None:
                return f"device {device.id.device} consumes from counter set {use.counter_set}, which is not there"
            unknown = use.counters.keys() - known.counters.keys()
            if unknown:
                return f"device {device.id.device} consumes counter {min(unknown)}, which is not there"
    return ""
