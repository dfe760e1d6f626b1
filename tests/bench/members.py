"""Two real clusters and a broker between them, with as many GPUs as a section wants: what users would have.

The lender `b` has kwok nodes with the slices NVIDIA's driver publishes; `a` borrows. Broker and agents are processes of
their own (`tests.e2e.world`), the agents under exactly the rights of their chart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.bench.asking import Asker
from tests.bench.section import Absent, Bench
from tests.controlplane.cluster import CONTROL_PLANE, Cluster, start_clusters
from tests.controlplane.parts import Parts
from tests.controlplane.toolchain import CannotBuild
from tests.e2e.world import World

GPUS = 8
"""In every node."""
FULL_NODES, QUICK_NODES = 50, 10
POLICY = """
apiVersion: lendmesh.dev/v1alpha1
kind: LendingPolicy
metadata: {name: everything}
spec:
  rules:
  - name: h100
    driver: gpu.nvidia.com
    price: {amount: "2.40"}
    minDuration: 1s
    minimumRuntime: 0s
    reclaimNotice: 1s
"""


class Members(World):
    """A world that knows its processes' ids."""

    def __init__(self, *clusters: Cluster, broker_env: Mapping[str, str] | None = None) -> None:
        super().__init__(clusters, broker_env=broker_env)
        self.pids: dict[str, int] = {}
        """`broker`, and `agent-<cluster>`."""

    def start_broker(self) -> int:
        self.pids["broker"] = super().start_broker()
        return self.pids["broker"]

    def start_agent(self, name: str) -> int:
        self.pids[f"agent-{name}"] = super().start_agent(name)
        return self.pids[f"agent-{name}"]

    def asker(self) -> Asker:
        return Asker(url=self.url, token=self.token, ca=self.ca)


def parts_for(bench: Bench) -> Parts:
    """The programs of a cluster, built where they are missing.

    :raises Absent: they cannot be had here.
    """

    def prepare() -> Parts:
        parts = Parts(bench.k8s_version)
        try:
            parts.prepare(*CONTROL_PLANE, "kubectl", "kwok", "helm")
        except CannotBuild as reason:
            raise Absent(str(reason)) from reason
        return parts

    return bench.shared("parts", prepare)


def names_of(count: int) -> list[str]:
    """Names of a lender's nodes."""
    return [f"gpu-{number:03d}" for number in range(count)]


def furnish(cluster: Cluster, nodes: list[str]) -> None:
    """Nodes with GPUs."""
    cluster.add_nodes(*nodes)
    for node in nodes:
        cluster.publish_gpus(node, count=GPUS)


@contextmanager
def members(bench: Bench, *, nodes: int) -> Iterator[Members]:
    """A borrower `a`, a lender `b` with so many nodes, all of whose GPUs are on offer when this begins."""
    parts = parts_for(bench)
    bench.say(f"starting two control planes, a broker and two agents; the lender has {nodes} nodes × {GPUS} H100")
    a, b = start_clusters(["a", "b"], parts=parts)
    with a, b:
        furnish(b, names_of(nodes))
        with Members(a, b) as world:
            world.start_broker()
            for name in ("a", "b"):
                world.join(name)
            b.apply(POLICY)
            asyncio.run(offered(world, nodes * GPUS))
            bench.say("ready")
            yield world


def shared_members(bench: Bench) -> Members:
    """Two clusters for all sections that leave the lender with devices to spare; they end with the run."""
    nodes = QUICK_NODES if bench.quick else FULL_NODES
    return bench.shared("members", lambda: bench.ends.enter_context(members(bench, nodes=nodes)))


async def offered(world: Members, devices: int, *, within: float = 120) -> None:
    """Wait until exactly so many devices are on offer.

    :raises TimeoutError: they were not, within so many seconds.
    """
    counts: dict[str, int] = {}

    def hear(_: float, offer: dict[str, object]) -> None:
        counts[str(offer["id"])] = int(str(offer["devices"]))

    async with world.asker() as asker, asker.follow("/v1/offers/watch", hear) as offers:
        for offer in (await asker.get("/v1/offers"))["items"]:
            counts.setdefault(offer["id"], offer["devices"])
        await offers.until(lambda: sum(counts.values()) == devices, within=within, what=f"{devices} devices on offer")
