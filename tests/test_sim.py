"""What a simulated cluster adds to being one: faults on demand, time from outside, the same story every time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clusteragent.kube.interface import (
    CONFIG_MAPS,
    DEVICE_CLASSES,
    DEVICE_TAINT_RULES,
    NODES,
    PODS,
    RESOURCE_CLAIMS,
    Event,
    Kind,
    NotFound,
    Obj,
)
from clusteragent.kube.sim import Call, SimCluster, SimKube
from tests.controlplane import fixtures


class HandTime:
    """A clock and its timers, moved by hand."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
        self._timers: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self.moment

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        if seconds <= 0:
            asyncio.get_running_loop().call_soon(do)
        else:
            heapq.heappush(self._timers, (self.moment + timedelta(seconds=seconds), next(self._order), do))

    async def advance(self, seconds: float, cluster: SimCluster) -> None:
        end = self.moment + timedelta(seconds=seconds)
        while self._timers and self._timers[0][0] <= end:
            self.moment, _, do = heapq.heappop(self._timers)
            do()
            await settled(cluster)
        self.moment = end


async def settled(cluster: SimCluster) -> None:
    """Let everybody have turns until there is nothing left to do."""
    quiet = 0
    while quiet < 10:
        await asyncio.sleep(0)
        quiet = quiet + 1 if cluster.settled else 0


def furnished(name: str = "sim", *, nodes: tuple[str, ...] = ("node-a",), gpus: int = 2, **how: Any) -> SimCluster:
    cluster = SimCluster(name, **how)
    cluster.put(DEVICE_CLASSES, fixtures.nvidia_device_class())
    for node in nodes:
        cluster.add_node(node)
        cluster.publish(fixtures.nvidia_slices(node, count=gpus))
    return cluster


def here(body: Obj) -> Obj:
    return {**body, "metadata": {**body["metadata"], "namespace": "default"}}


async def a_pod_with_devices(kube: SimKube, name: str, *, count: int = 1, **spec: Any) -> None:
    await kube.create(RESOURCE_CLAIMS, here(fixtures.claim(name, count=count)))
    pod = here(fixtures.pod(name, claims=[name]))
    await kube.create(PODS, {**pod, "spec": {**pod["spec"], **spec}})


async def phase(kube: SimKube, name: str) -> str:
    return str((await kube.get(PODS, name, "default"))["status"]["phase"])


class Watcher:
    """A watch and what it has told so far, kept as an informer keeps it."""

    def __init__(self, kube: SimKube, kind: Kind) -> None:
        self.events: list[Event] = []
        self.known: dict[str, Obj] = {}
        self._kube, self._kind = kube, kind
        self._task = asyncio.create_task(self._run())
        self._news = asyncio.Condition()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(condition), 10)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        fresh: dict[str, Obj] | None = {}
        async with aclosing(self._kube.watch(self._kind, namespace="default")) as events:  # type: ignore[type-var]
            async for event in events:
                self.events.append(event)
                if event.type == "RELISTING":
                    fresh = {}
                elif event.type == "LISTED":
                    self.known, fresh = fresh or {}, None
                else:
                    assert event.obj is not None
                    into = self.known if fresh is None else fresh
                    into.pop(event.obj["metadata"]["name"], None)
                    if event.type != "DELETED":
                        into[event.obj["metadata"]["name"]] = event.obj
                async with self._news:
                    self._news.notify_all()


def data(number: int) -> Obj:
    return here({"metadata": {"name": f"c-{number}"}, "data": {"n": str(number)}})


async def test_a_dropped_watch_misses_nothing_and_repeats_nothing() -> None:
    cluster = furnished()
    kube = cluster.connect()
    watcher = Watcher(kube, CONFIG_MAPS)
    for number in range(9):
        await kube.create(CONFIG_MAPS, data(number))
        if number % 3 == 1:
            kube.drop_watches()
    await watcher.until(lambda: len(watcher.known) == 9)
    added = [event.obj["metadata"]["name"] for event in watcher.events if event.obj]
    assert added == [f"c-{number}" for number in range(9)]
    assert not any(event.type == "RELISTING" for event in watcher.events)
    await watcher.stop()


async def test_an_expired_watch_lists_again_and_then_knows_all_there_is() -> None:
    cluster = furnished()
    kube, other = cluster.connect(), cluster.connect()
    await other.create(CONFIG_MAPS, data(1))
    watcher = Watcher(kube, CONFIG_MAPS)
    await watcher.until(lambda: watcher.known)
    kube.faults.down = True
    kube.drop_watches()
    await other.delete(CONFIG_MAPS, "c-1", namespace="default")
    await other.create(CONFIG_MAPS, data(2))
    kube.expire_watches()
    kube.faults.down = False
    await watcher.until(lambda: list(watcher.known) == ["c-2"])
    types = [event.type for event in watcher.events]
    assert types == ["ADDED", "LISTED", "RELISTING", "ADDED", "LISTED"]
    await watcher.stop()


async def test_a_failing_call_changes_nothing_and_the_next_one_works() -> None:
    kube = furnished().connect()
    kube.faults.fail_next(ConnectionResetError("lost"), verb="create", kind=CONFIG_MAPS)
    assert await kube.list(CONFIG_MAPS) == []
    with pytest.raises(ConnectionResetError):
        await kube.create(CONFIG_MAPS, data(1))
    assert await kube.list(CONFIG_MAPS) == []
    await kube.create(CONFIG_MAPS, data(1))


async def test_an_answer_can_be_lost_after_its_call_took_effect() -> None:
    kube = furnished().connect()

    async def lose(call: Call) -> None:
        if call.verb == "create":
            raise ConnectionResetError("lost")

    kube.faults.after = lose
    with pytest.raises(ConnectionResetError):
        await kube.create(CONFIG_MAPS, data(1))
    assert await kube.get(CONFIG_MAPS, "c-1", "default")


async def test_faults_are_one_connections_own() -> None:
    cluster = furnished()
    broken, whole = cluster.connect(), cluster.connect()
    broken.faults.down = True
    with pytest.raises(ConnectionRefusedError):
        await broken.list(PODS)
    assert await whole.list(PODS) == []


async def test_calls_are_recorded_in_the_words_of_rbac() -> None:
    kube = furnished().connect()
    kube.faults.record = True
    await kube.create(CONFIG_MAPS, data(1))
    await kube.merge(CONFIG_MAPS, "c-1", {"data": {}}, namespace="default")
    assert [(call.verb, call.kind.plural) for call in kube.faults.calls] == [
        ("create", "configmaps"),
        ("patch", "configmaps"),
    ]


async def test_a_slow_call_takes_the_clusters_time_and_not_ours() -> None:
    time = HandTime()
    cluster = furnished(now=time.now, later=time.later)
    kube = cluster.connect()
    kube.faults.latency_s = lambda call: 3600.0
    call = asyncio.create_task(kube.create(CONFIG_MAPS, data(1)))
    await settled(cluster)
    assert not call.done()
    await time.advance(3601, cluster)
    await call


async def test_a_pod_that_takes_its_time_to_end_holds_its_devices_until_then() -> None:
    time = HandTime()
    cluster = furnished(now=time.now, later=time.later, pods_stop_after_s=20, gpus=1)
    kube = cluster.connect()
    await a_pod_with_devices(kube, "slow", terminationGracePeriodSeconds=30)
    await a_pod_with_devices(kube, "next")
    await settled(cluster)
    assert (await phase(kube, "slow"), await phase(kube, "next")) == ("Running", "Pending")
    await kube.delete(PODS, "slow", namespace="default")
    await time.advance(19, cluster)
    assert (await kube.get(PODS, "slow", "default"))["metadata"]["deletionTimestamp"] == "2026-11-23T12:00:30Z"
    assert await phase(kube, "next") == "Pending"
    await time.advance(2, cluster)
    with pytest.raises(NotFound):
        await kube.get(PODS, "slow", "default")
    assert await phase(kube, "next") == "Running"


async def test_deleting_again_prolongs_nothing() -> None:
    time = HandTime()
    cluster = furnished(now=time.now, later=time.later, pods_stop_after_s=20)
    kube = cluster.connect()
    await a_pod_with_devices(kube, "slow", terminationGracePeriodSeconds=30)
    await settled(cluster)
    await kube.delete(PODS, "slow", namespace="default")
    first = await kube.get(PODS, "slow", "default")
    await time.advance(10, cluster)
    await kube.delete(PODS, "slow", namespace="default")
    assert await kube.get(PODS, "slow", "default") == first


async def test_a_shorter_grace_is_kept_to() -> None:
    time = HandTime()
    cluster = furnished(now=time.now, later=time.later, pods_stop_after_s=20)
    kube = cluster.connect()
    await a_pod_with_devices(kube, "slow", terminationGracePeriodSeconds=30)
    await settled(cluster)
    await kube.delete(PODS, "slow", namespace="default", grace_s=5)
    await time.advance(6, cluster)
    with pytest.raises(NotFound):
        await kube.get(PODS, "slow", "default")


async def test_the_same_calls_make_the_same_cluster() -> None:
    async def story() -> list[Obj]:
        time = HandTime()
        cluster = furnished(nodes=("node-a", "node-b"), now=time.now, later=time.later)
        kube = cluster.connect()
        for number in range(5):
            await a_pod_with_devices(kube, f"pod-{number}")
        await settled(cluster)
        await kube.delete(PODS, "pod-0", namespace="default")
        await time.advance(60, cluster)
        return [obj for kind in (PODS, RESOURCE_CLAIMS, NODES) for obj in await kube.list(kind)]

    first, second = await story(), await story()
    assert first == second
    assert sum(pod["status"]["phase"] == "Running" for pod in first if pod["kind"] == "Pod") == 4


async def test_clusters_share_nothing() -> None:
    one, other = furnished("one"), furnished("other")
    await one.connect().create(CONFIG_MAPS, data(1))
    assert await other.connect().list(CONFIG_MAPS) == []
    uids = [{node["metadata"]["uid"] for node in await cluster.connect().list(NODES)} for cluster in (one, other)]
    assert not uids[0] & uids[1]


async def test_what_is_read_can_be_changed_without_changing_the_cluster() -> None:
    kube = furnished().connect()
    made = await kube.create(CONFIG_MAPS, data(1))
    made["data"]["n"] = "changed"
    (listed,) = await kube.list(CONFIG_MAPS)
    listed["data"]["n"] = "changed too"
    assert (await kube.get(CONFIG_MAPS, "c-1", "default"))["data"] == {"n": "1"}


async def test_pods_of_a_lost_node_are_gone_and_their_devices_with_the_slice() -> None:
    cluster = furnished(nodes=("node-a", "node-b"))
    kube = cluster.connect()
    await a_pod_with_devices(kube, "there", count=2, nodeSelector={"kubernetes.io/hostname": "node-b"})
    await settled(cluster)
    cluster.remove(NODES, "node-b")
    await settled(cluster)
    with pytest.raises(NotFound):
        await kube.get(PODS, "there", "default")
    assert not (await kube.get(RESOURCE_CLAIMS, "there", "default")).get("status", {}).get("allocation")


async def test_a_tainted_device_is_left_alone_until_the_rule_goes() -> None:
    cluster = furnished(gpus=1)
    kube = cluster.connect()
    selector = {"driver": fixtures.NVIDIA, "pool": "node-a", "device": "gpu-0"}
    taint = {"key": "broken", "value": "yes", "effect": "NoSchedule"}
    rule = {"metadata": {"name": "broken"}, "spec": {"deviceSelector": selector, "taint": taint}}
    cluster.put(DEVICE_TAINT_RULES, rule)
    await a_pod_with_devices(kube, "waiting")
    await settled(cluster)
    assert await phase(kube, "waiting") == "Pending"
    cluster.remove(DEVICE_TAINT_RULES, "broken")
    await settled(cluster)
    assert await phase(kube, "waiting") == "Running"


async def test_a_tainted_or_cordoned_node_takes_only_who_tolerates_it() -> None:
    cluster = furnished(nodes=())
    cluster.put(NODES, {"metadata": {"name": "cordoned"}, "spec": {"unschedulable": True}})
    cluster.add_node("tainted", taints=[{"key": "for", "value": "others", "effect": "NoSchedule"}])
    kube = cluster.connect()
    toleration = {"key": "for", "operator": "Equal", "value": "others", "effect": "NoSchedule"}
    await kube.create(PODS, here(fixtures.pod("stranger")))
    guest = here(fixtures.pod("guest"))
    await kube.create(PODS, {**guest, "spec": {**guest["spec"], "tolerations": [toleration]}})
    await settled(cluster)
    assert (await kube.get(PODS, "guest", "default"))["spec"]["nodeName"] == "tainted"
    (condition,) = (await kube.get(PODS, "stranger", "default"))["status"]["conditions"]
    assert condition["message"].startswith(
        "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."
    )


async def test_of_the_waiting_the_more_important_is_served_first() -> None:
    cluster = furnished(gpus=1)
    kube = cluster.connect()
    await a_pod_with_devices(kube, "first")
    await settled(cluster)
    await a_pod_with_devices(kube, "patient")
    await a_pod_with_devices(kube, "important", priority=1000)
    await settled(cluster)
    await kube.delete(PODS, "first", namespace="default")
    await settled(cluster)
    assert (await phase(kube, "important"), await phase(kube, "patient")) == ("Running", "Pending")


async def test_a_history_too_long_for_a_watch_makes_it_list_again() -> None:
    cluster = furnished()
    kube, other = cluster.connect(), cluster.connect()
    watcher = Watcher(kube, CONFIG_MAPS)
    await watcher.until(lambda: watcher.events)
    kube.faults.down = True
    kube.drop_watches()
    await settled(cluster)
    await other.create(CONFIG_MAPS, data(1))
    for number in range(2_000):
        await other.merge(CONFIG_MAPS, "c-1", {"data": {"n": str(number)}}, namespace="default")
    kube.faults.down = False
    await watcher.until(lambda: watcher.known.get("c-1", {}).get("data") == {"n": "1999"})
    assert any(event.type == "RELISTING" for event in watcher.events)
    assert len(watcher.events) < 100
    await watcher.stop()
