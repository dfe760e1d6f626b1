"""Every device of a cluster with its state, kept up to date one event at a time.

Raw Kubernetes objects go in (from list-then-watch), device states come out. The rules are the scheduler's where they
say no, and stricter where it would say yes to something doubtful: only the newest generation of a pool counts, a pool
that is incomplete, contradictory or unreadable offers nothing, and whatever any claim holds is taken, whether or not
it is still published and whoever reserved it. Everything is judged pool by pool, so an event costs one pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from broker.dra import pools as pooling
from broker.dra.allocator import Unsatisfiable, allocate
from broker.dra.availability import ALLOCATED, TAINTED, UNUSABLE
from broker.dra.model import Allocated, Allocation, DeviceClass, DeviceId, Features, PoolId, Slice, TaintRule
from broker.dra.normalise import read_claim, read_class, read_holding, read_slice, read_taint_rule
from broker.dra.pools import Published
from broker.dra.reading import Malformed
from broker.dra.states import FREE, INCOMPLETE, STALE, DeviceState, Holder, NodeFacts, judge_pool, node_facts, taken

__all__ = [
    "ALLOCATED",
    "CLAIM",
    "CLASS",
    "FREE",
    "INCOMPLETE",
    "NODE",
    "SLICE",
    "STALE",
    "TAINTED",
    "TAINT_RULE",
    "UNUSABLE",
    "DeviceState",
    "Inventory",
]

SLICE, CLAIM, CLASS, NODE, TAINT_RULE = "ResourceSlice", "ResourceClaim", "DeviceClass", "Node", "DeviceTaintRule"


class Inventory:
    """The devices of one cluster.

    Not safe for several threads. ``features`` are those of the cluster's scheduler.
    """

    def __init__(self, *, features: Features = Features()) -> None:  # noqa: B008
        self.features = features
        self._slices: dict[str, Slice] = {}
        self._by_pool: dict[PoolId, dict[str, Slice]] = {}
        self._holders: dict[str, Holder] = {}
        self._held: dict[PoolId, dict[str, Holder]] = {}
        self._classes: dict[str, DeviceClass] = {}
        self._nodes: dict[str, NodeFacts] = {}
        self._taint_rules: dict[str, TaintRule] = {}
        self._pools_of_node: dict[str, set[PoolId]] = {}
        self._nodes_of_pool: dict[PoolId, set[str]] = {}
        self._published: dict[PoolId, Published] = {}
        self._states: dict[PoolId, tuple[DeviceState, ...]] = {}
        self._pins: Counter[tuple[str | None, str]] = Counter()  # (node, pin): how many devices it would select
        self._stale: set[PoolId] = set()  # pools to judge again before anything is read
        self._problems: dict[tuple[str, str], str] = {}
        self._allocated: Allocated | None = None

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
            TAINT_RULE: self._taint_rules,
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
        self.settle()
        return [self._alone(state) for pool in sorted(self._states) for state in self._states[pool]]

    def free(self) -> list[DeviceState]:
        """The devices that may be lent now."""
        return [state for state in self.devices() if state.state == FREE]

    def device(self, device: DeviceId) -> DeviceState | None:
        self.settle()
        pool = self._states.get(PoolId(device.driver, device.pool), ())
        return next((self._alone(state) for state in pool if state.name == device.device), None)

    def problems(self) -> list[str]:
        """What could not be read or believed: objects and whole pools."""
        self.settle()
        found = [f"{kind} {key}: {problem}" for (kind, key), problem in self._problems.items()]
        for pool_id, published in self._published.items():
            newest = published.newest
            if newest.state != pooling.READY:
                found.append(f"pool {pool_id}: {newest.state}: {newest.problem}")
        return sorted(found)

    def allocated(self) -> Allocated:
        """What the claims of the whole cluster take."""
        if self._allocated is None:
            self._allocated = taken(self._holders.values())
        return self._allocated

    def allocate(
        self, claims: Sequence[object], node: str, *, new_share_id: Callable[[], str] | None = None
    ) -> list[Allocation] | Unsatisfiable:
        """What kube-scheduler would answer for these raw claims on that node (all together or none).

        Raises:
            Malformed: a claim cannot be read.
        """
        self.settle()
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
        holder = self._holders[key] = Holder(key, results)
        self._allocated = None
        for pool in {PoolId(result.id.driver, result.id.pool) for result in results}:
            self._held.setdefault(pool, {})[key] = holder
            self._touch(pool)

    def _put_class(self, key: str, obj: object) -> None:
        self._classes[key] = read_class(obj)

    def _put_node(self, key: str, obj: object) -> None:
        self._nodes[key] = node_facts(obj)
        for pool in self._pools_of_node.get(key, ()):
            self._touch(pool)

    def _put_taint_rule(self, key: str, obj: object) -> None:
        rule = read_taint_rule(obj)
        self._remove(TAINT_RULE, key)
        self._taint_rules[key] = rule
        self._touch_matching(rule)

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
            self._allocated = None
            for pool in {PoolId(result.id.driver, result.id.pool) for result in holder.results}:
                left_holders = self._held[pool]
                del left_holders[key]
                if not left_holders:
                    del self._held[pool]
                self._touch(pool)
        elif kind == CLASS:
            self._classes.pop(key, None)
        elif kind == TAINT_RULE and key in self._taint_rules:
            self._touch_matching(self._taint_rules.pop(key))
        elif kind == NODE and self._nodes.pop(key, None) is not None:
            for pool in self._pools_of_node.get(key, ()):
                self._touch(pool)

    _putters: Mapping[str, Callable[[Inventory, str, object], None]] = {
        SLICE: _put_slice,
        CLAIM: _put_claim,
        CLASS: _put_class,
        NODE: _put_node,
        TAINT_RULE: _put_taint_rule,
    }

    # Judging

    def _touch(self, pool: PoolId, *, publish: bool = False) -> None:
        self._stale.add(pool)
        if publish:
            self._published.pop(pool, None)

    def _alone(self, state: DeviceState) -> DeviceState:
        """The state, unless the pin of a free device would select a second one on its node."""
        if state.state != FREE or state.pin is None or self._pins[state.node, state.pin] < 2:
            return state
        return replace(state, state=UNUSABLE, reason="a neighbour publishes the same, so neither can be held by itself")

    def _touch_matching(self, rule: TaintRule) -> None:
        for pool in self._by_pool:
            if rule.driver in ("", pool.driver) and rule.pool in ("", pool.pool):
                self._touch(pool, publish=True)

    def forget_judgements(self) -> None:
        """Judge every pool again when next asked: what events do to some, for all."""
        for pool in {*self._by_pool, *self._held}:
            self._touch(pool, publish=True)

    def settle(self) -> None:
        """Judge the pools that events have touched; every answer does it first."""
        for pool_id in self._stale:
            slices = self._by_pool.get(pool_id)
            if slices and pool_id not in self._published:
                parts = [_with_rules(part, self._taint_rules.values()) for part in slices.values()]
                self._published[pool_id] = pooling.publish(pool_id, parts, features=self.features)
            states = judge_pool(
                pool_id,
                published=self._published.get(pool_id),
                holders=self._held.get(pool_id, {}).values(),
                nodes=self._nodes,
                features=self.features,
            )
            self._link(pool_id, {state.node for state in states if state.node is not None})
            for pin in _pins(self._states.pop(pool_id, ())):
                self._pins[pin] -= 1
                if not self._pins[pin]:
                    del self._pins[pin]
            self._pins.update(_pins(states))
            if states:
                self._states[pool_id] = states
        self._stale.clear()

    def _link(self, pool: PoolId, nodes: set[str]) -> None:
        for node in self._nodes_of_pool.get(pool, set()) - nodes:
            self._pools_of_node[node].discard(pool)
        for node in nodes:
            self._pools_of_node.setdefault(node, set()).add(pool)
        self._nodes_of_pool[pool] = nodes


def _with_rules(part: Slice, rules: Iterable[TaintRule]) -> Slice:
    """The slice with the taints that administrators put on its devices."""
    meant = [rule for rule in rules if rule.driver in ("", part.pool.driver) and rule.pool in ("", part.pool.pool)]
    if not meant:
        return part
    devices = []
    for device in part.devices:
        extra = tuple(rule.taint for rule in meant if rule.device in ("", device.id.device))
        devices.append(replace(device, taints=device.taints + extra) if extra else device)
    return replace(part, devices=tuple(devices))


def _pins(states: Iterable[DeviceState]) -> list[tuple[str | None, str]]:
    return [(state.node, state.pin) for state in states if state.pin is not None]


def _key(obj: object) -> str:
    """``namespace/name`` or ``name`` of a raw object, as far as it has them."""
    metadata = obj.get("metadata") if isinstance(obj, Mapping) else None
    if not isinstance(metadata, Mapping):
        return ""
    namespace, name = (str(metadata.get(part) or "")[:253] for part in ("namespace", "name"))
    return f"{namespace}/{name}" if namespace else name
