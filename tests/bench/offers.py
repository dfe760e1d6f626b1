"""How far the broker's offers lag behind a cluster: from a change there to the new number on a borrower's stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.asking import Following, Object
from tests.bench.figures import percentile, seconds
from tests.bench.kube import Kube, Seen, kube_of
from tests.bench.members import FULL_NODES, GPUS, QUICK_NODES, Members, shared_members
from tests.bench.memory import note_memory
from tests.bench.section import Bench, Figure, Outcome, Section
from tests.controlplane.cluster import SLICES
from tests.controlplane.fixtures import claim, pod

ROUNDS, QUICK_ROUNDS = 50, 5
WITHIN_S = 30.0
NAMESPACE = "default"
CLAIMS = f"/apis/resource.k8s.io/v1/namespaces/{NAMESPACE}/resourceclaims"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def run(bench: Bench) -> Outcome:
    nodes, rounds = (QUICK_NODES, QUICK_ROUNDS) if bench.quick else (FULL_NODES, ROUNDS)
    world = shared_members(bench)
    bench.say(f"{rounds} taints set and lifted, {rounds} pods with a claim made and deleted")
    lags = asyncio.run(_measure(world, rounds=rounds))
    note_memory(bench, world.pids, "offers")
    all_of_them = [*lags.tainted, *lags.lifted, *lags.taken, *lags.freed]
    return Outcome(
        how=(
            f"One change at a time in a cluster of {nodes * GPUS} GPUs, until a borrower's watch of the offers shows "
            "the new number. Taints: from sending the change of the slice. Pods: from the moment the claim is seen "
            "allocated, or free again; the whole way, scheduler included, is below."
        ),
        figures=[
            Figure("p50 of all", seconds(percentile(all_of_them, 50))),
            Figure("p99 of all", seconds(percentile(all_of_them, 99)), "< 1 s", percentile(all_of_them, 99) < 1),
            *(
                Figure(what, f"p50 {seconds(percentile(values, 50))}, p99 {seconds(percentile(values, 99))}")
                for what, values in (
                    ("a device is tainted", lags.tainted),
                    ("the taint is lifted", lags.lifted),
                    ("a pod's claim is allocated", lags.taken),
                    ("a pod's claim is free again", lags.freed),
                    ("from creating claim and pod", lags.created),
                    ("from deleting pod and claim", lags.deleted),
                )
            ),
        ],
    )


@dataclass
class Lags:
    """Seconds."""

    tainted: list[float] = field(default_factory=list)
    lifted: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    freed: list[float] = field(default_factory=list)
    created: list[float] = field(default_factory=list)
    deleted: list[float] = field(default_factory=list)


class Count:
    """How many devices are on offer, as the stream tells it, and since when."""

    def __init__(self) -> None:
        self._offers: dict[str, int] = {}
        self.at = 0.0

    def hear(self, now: float, offer: Object) -> None:
        self._offers[offer["id"]], self.at = offer["devices"], now

    @property
    def devices(self) -> int:
        return sum(self._offers.values())


async def _measure(world: Members, *, rounds: int) -> Lags:
    lags, count = Lags(), Count()
    async with (
        world.asker() as asker,
        asker.follow("/v1/offers/watch", count.hear) as following,
        kube_of(world.clusters["b"]) as kube,
        Seen(kube, CLAIMS, key=_allocations()) as claims,
    ):
        for offer in (await asker.get("/v1/offers"))["items"]:
            count.hear(0.0, offer)
        devices = count.devices

        async def since(began: float, expected: int) -> float:
            await _shown(following, count, expected)
            return count.at - began

        slices = await _with_a_free_first_device(kube)
        for number in range(rounds):
            slice_ = slices[number % len(slices)]
            began = time.perf_counter()
            await _taint(kube, slice_, True)
            lags.tainted.append(await since(began, devices - 1))
            began = time.perf_counter()
            await _taint(kube, slice_, False)
            lags.lifted.append(await since(began, devices))
        for number in range(rounds):
            name = f"home-{number}"
            began = time.perf_counter()
            await kube.create(CLAIMS, claim(name))
            await kube.create(PODS, pod(name, claims=[name]))
            lags.created.append(await since(began, devices - 1))
            lags.taken.append(max(count.at - await claims.name(f"{name} taken", within=WITHIN_S), 0.0))
            began = time.perf_counter()
            await kube.delete(f"{PODS}/{name}")
            await kube.delete(f"{CLAIMS}/{name}")
            lags.deleted.append(await since(began, devices))
            lags.freed.append(max(count.at - await claims.name(f"{name} free", within=WITHIN_S), 0.0))
    return lags


async def _shown(following: Following, count: Count, expected: int) -> None:
    await following.until(lambda: count.devices == expected, within=WITHIN_S, what=f"{expected} devices on offer")


async def _taint(kube: Kube, slice_: Object, wanted: bool) -> None:
    """Taint or free the first device of a slice, as its driver would when it fails or recovers."""
    first, *others = slice_["spec"]["devices"]
    taints = {"taints": [{"key": "bench/unwell", "value": "yes", "effect": "NoSchedule"}]} if wanted else {}
    patch = {"spec": {"devices": [{**first, **taints}, *others]}}
    await kube.merge(f"{SLICES}/{slice_['metadata']['name']}", patch)


async def _with_a_free_first_device(kube: Kube) -> list[Object]:
    """Slices whose first device no claim has: tainting it changes what is on offer."""
    taken = {
        (result["pool"], result["device"])
        for claim_ in (await kube.list("/apis/resource.k8s.io/v1/resourceclaims"))["items"]
        for result in claim_.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
    }
    found = []
    for slice_ in (await kube.list(SLICES))["items"]:
        spec = slice_["spec"]
        if (spec["pool"]["name"], spec["devices"][0]["name"]) not in taken:
            found.append(slice_)
    return found


def _allocations() -> Callable[[str, Object], str | None]:
    """Names «<claim> taken» and «<claim> free» from events of claims."""
    allocated = set()

    def key(type_: str, obj: Object) -> str | None:
        name = str(obj["metadata"]["name"])
        if type_ != "DELETED" and obj.get("status", {}).get("allocation"):
            allocated.add(name)
            return f"{name} taken"
        return f"{name} free" if name in allocated else None

    return key


SECTION = Section(name="offers", order=30, about="from a change in a cluster to the offers a borrower sees", run=run)
