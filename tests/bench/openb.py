"""The openb cluster and its pods: node packing as FGD's authors measured it, policies re-implemented.

Nodes have CPU and up to eight GPUs; a pod asks for CPU and either a share of one GPU (in thousandths) or some whole
ones, perhaps of certain models. Pods arrive one by one in a shuffled order, with more drawn at random until they ask
for 1.3 times the GPUs there are; what doesn't fit when it arrives is lost. The figure is the share of all GPUs that is
allocated when 100 % or 130 % of them have been asked for (Weng et al., USENIX ATC'23; trace and published figures are
Apache-2.0, from hkust-adsl/kubernetes-scheduler-simulator and alibaba/clusterdata).

What each policy decides by was read in the authors' simulator; the code here is ours. Its scores are whole numbers from
0 to 100 there, and the first of the best nodes is
taken: with ties broken at random, FGD would be five points worse. Memory is not looked at.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from tests.bench.board import Bools, Floats, Ints
from tests.bench.federation import DATA

OPENB = DATA / "openb"
WORKLOADS = ("default", "gpuspec33", "multigpu50", "gpushare100")
MILLI = 1_000
"""Of one GPU."""
LARGEST_CPU, LARGEST_GPU = 128_000, 8_000
"""Thousandths in the largest node; scores are relative to them."""
MOST = 8
"""GPUs in the largest node."""
FULL = 1.3
"""GPUs asked for by the end, as a share of those there are."""
POPULAR = 0.95
"""FGD's typical pods are the commonest shapes that make up so much of the workload."""


def missing() -> str | None:
    """What is not there, in a sentence; None where the data is complete."""
    names = ["openb_node_list_gpu_node.csv", *(f"openb_pod_list_{name}.csv.gz" for name in WORKLOADS)]
    absent = [name for name in names if not (OPENB / name).exists()]
    return f"the measured data is absent: {absent[0]} is not under {OPENB}" if absent else None


@dataclass(frozen=True)
class Pod:
    """One shape; pods of the same shape are the same to every policy."""

    cpu: int
    milli: int
    """Of each GPU: 1,000 for whole ones."""
    gpus: int
    models: frozenset[str]
    """Empty: any."""

    @property
    def total(self) -> int:
        return self.milli * self.gpus


class Cluster:
    """What is left on each node; mutable."""

    def __init__(self, nodes: Sequence[tuple[int, int, str]]) -> None:
        """`nodes`: thousandths of CPU, GPUs, model."""
        self.cpu: Ints = np.array([cpu for cpu, _, _ in nodes], dtype=np.int64)
        self.gpus: Ints = np.array([gpus for _, gpus, _ in nodes], dtype=np.int64)
        self.free: Ints = np.where(np.arange(MOST) < self.gpus[:, None], MILLI, 0).astype(np.int64)
        """Thousandths of each GPU of each node; 0, too, where there is none."""
        self.models = np.array([model for _, _, model in nodes])
        self.total = int(self.free.sum())
        self.version: Ints = np.zeros(len(nodes), dtype=np.int64)
        """Goes up with each change of a node."""
        self.named: dict[frozenset[str], Bools] = {}

    def accessible(self, models: frozenset[str]) -> Bools:
        """Which nodes are of one of these models."""
        if models not in self.named:
            every = np.ones(len(self.models), dtype=np.bool_)
            self.named[models] = np.isin(self.models, sorted(models)) if models else every
        return self.named[models]

    def holding(self, pod: Pod) -> Bools:
        """Which nodes could take the pod now."""
        fit: Bools = self.accessible(pod.models) & (self.cpu >= pod.cpu)
        if pod.gpus:
            fit = fit & ((self.free >= pod.milli).sum(axis=1) >= pod.gpus)
        return fit

    def take(self, node: int, pod: Pod, gpu: int | None = None) -> None:
        """A share from the GPU named; whole GPUs from the first that are free."""
        self.cpu[node] -= pod.cpu
        if pod.gpus == 1 and pod.milli < MILLI:
            assert gpu is not None
            self.free[node, gpu] -= pod.milli
        elif pod.gpus:
            self.free[node, np.flatnonzero(self.free[node] == MILLI)[: pod.gpus]] = 0
        self.version[node] += 1
        assert self.cpu[node] >= 0
        assert self.free[node].min() >= 0

    @property
    def allocated(self) -> float:
        """Share of all GPUs."""
        return 1 - int(self.free.sum()) / self.total


def cluster() -> Cluster:
    """The 1,213 GPU nodes, empty."""
    with (OPENB / "openb_node_list_gpu_node.csv").open() as rows:
        return Cluster([(int(row["cpu_milli"]), int(row["gpu"]), row["model"]) for row in csv.DictReader(rows)])


def pods(workload: str) -> list[Pod]:
    """In the order of the file."""
    with gzip.open(OPENB / f"openb_pod_list_{workload}.csv.gz", "rt") as rows:
        return [
            Pod(
                cpu=int(row["cpu_milli"]),
                milli=int(row["gpu_milli"]) if int(row["num_gpu"]) else 0,
                gpus=int(row["num_gpu"]),
                models=frozenset(row["gpu_spec"].split("|")) if row.get("gpu_spec") else frozenset(),
            )
            for row in csv.DictReader(rows)
        ]


def stream(given: Sequence[Pod], total: int, rng: np.random.Generator) -> list[Pod]:
    """All pods in a random order, then some drawn again, until `FULL` × `total` thousandths are asked for."""
    order = [given[at] for at in rng.permutation(len(given))]
    asked = sum(pod.total for pod in order)
    while asked > FULL * total:
        asked -= order.pop(int(rng.integers(len(order)))).total
    while True:
        more = given[int(rng.integers(len(given)))]
        if asked + more.total > FULL * total:
            return order
        order.append(more)
        asked += more.total


Choice = tuple[int, int | None]
"""Node, and for a share of a GPU which one."""
Policy = Callable[[Cluster, Pod, Ints, np.random.Generator], Choice]
"""Chooses among the nodes (indices) that could take the pod."""


def replay(policy: Policy, arrivals: Sequence[Pod], on: Cluster, rng: np.random.Generator) -> dict[int, float]:
    """Share allocated, in %, when 100 % and when 130 % have been asked for: the mean within half a point of it."""
    seen: dict[int, list[float]] = {100: [], 130: []}
    asked = used = 0
    for pod in arrivals:
        asked += pod.total
        nodes = np.flatnonzero(on.holding(pod))
        if len(nodes):
            node, gpu = policy(on, pod, nodes, rng)
            on.take(node, pod, gpu)
            used += pod.total
        now = round(100 * asked / on.total)
        if now in seen:
            seen[now].append(100 * used / on.total)
    return {at: fmean(values) if values else 100 * used / on.total for at, values in seen.items()}


def _highest(scores: npt.NDArray[np.int64], nodes: Ints) -> int:
    """Of several the first in the list of nodes, as the authors patched their scheduler to do."""
    return int(nodes[int(scores.argmax())])


def tightest(on: Cluster, node: int, pod: Pod) -> int | None:
    """The GPU of the node with the least left that holds the share; none needs to be named for whole ones."""
    if pod.gpus != 1 or pod.milli == MILLI:
        return None
    free = on.free[node]
    return int(np.where(free >= pod.milli, free, MILLI + 1).argmin())


def random_fit(on: Cluster, pod: Pod, nodes: Ints, rng: np.random.Generator) -> Choice:
    """Any node; any GPU that holds it."""
    node = int(nodes[int(rng.integers(len(nodes)))])
    if pod.gpus != 1 or pod.milli == MILLI:
        return node, None
    able = np.flatnonzero(on.free[node] >= pod.milli)
    return node, int(able[int(rng.integers(len(able)))])


def dot_product(on: Cluster, pod: Pod, nodes: Ints, _: np.random.Generator) -> Choice:
    """The smallest inner product of what is left and what is asked, each relative to the largest node."""
    product = on.cpu[nodes] * pod.cpu / LARGEST_CPU**2 + on.free[nodes].sum(axis=1) * pod.total / LARGEST_GPU**2
    node = _highest((100 * (1 - product / 2)).astype(np.int64), nodes)
    return node, tightest(on, node, pod)


def best_fit(on: Cluster, pod: Pod, nodes: Ints, _: np.random.Generator) -> Choice:
    """The least left afterwards, CPU and GPU weighing the same, stretched to 0–100 among the nodes in question."""
    left = (on.cpu[nodes] - pod.cpu) / LARGEST_CPU + (on.free[nodes].sum(axis=1) - pod.total) / LARGEST_GPU
    scores = (100 * (1 - left / 2)).astype(np.int64)
    low, high = int(scores.min()), int(scores.max())
    node = _highest((scores - low) * 100 // max(1, high - low), nodes)
    return node, tightest(on, node, pod)


def gpu_packing(on: Cluster, pod: Pod, nodes: Ints, _: np.random.Generator) -> Choice:
    """GPUs in use before free ones on a used node, those before a free node; of each sort the tightest."""
    if not pod.gpus:
        return int(nodes[0]), None
    free = on.free[nodes]
    whole = (free == MILLI).sum(axis=1)
    idle = whole == on.gpus[nodes]
    # The GPUs the pod would get on each node: those with least left that hold it.
    able = np.sort(np.where(free >= pod.milli, free, 10 * MILLI), axis=1)[:, : pod.gpus]
    fresh = (able == MILLI).sum(axis=1)
    shared = np.maximum(100 - (able * 100 // MILLI).sum(axis=1) // 10, 50)
    scores = np.where(fresh > 0, np.maximum(50 - fresh, 33), shared)
    scores = np.where(idle, np.maximum(33 - whole, whole), scores)
    node = _highest(scores, nodes)
    return node, tightest(on, node, pod)


class Fragmentation:
    """FGD: where the expected fragmentation grows least (or shrinks most), for a workload like the one given.

    What a node has left is fragmented for a typical pod if the pod can't run there: all of it if the node as a whole
    can't hold it, else the GPUs with less left than one of it asks. The expectation is over typical pods.
    """

    def __init__(self, given: Sequence[Pod]) -> None:
        counts = Counter(given)
        order = sorted(
            counts, key=lambda pod: (counts[pod], pod.cpu, pod.milli, pod.gpus, sorted(pod.models)), reverse=True
        )
        typical, covered = [], 0
        for pod in order:
            if covered >= POPULAR * len(given):
                break
            typical.append(pod)
            covered += counts[pod]
        self._pods = typical
        self._weights: Floats = np.array([counts[pod] for pod in typical]) / covered
        self._cpu: Ints = np.array([pod.cpu for pod in typical])
        self._milli: Ints = np.array([pod.milli for pod in typical])
        self._gpus: Ints = np.array([pod.gpus for pod in typical])
        self._known: dict[Pod, tuple[Ints, Ints, Floats]] = {}
        self._access: Bools | None = None
        self._asked = Counter[frozenset[str]]()
        for pod in given:
            self._asked[pod.models] += pod.total
        self._crowding: Floats | None = None

    def amount(self, on: Cluster, nodes: Ints, cpu: Ints, free: Ints) -> Floats:
        """Expected thousandths of GPU that are fragmented, for nodes that have `cpu` and `free` left."""
        if self._access is None:
            self._access = np.stack([on.accessible(pod.models) for pod in self._pods], axis=1)
        holds = free[:, :, None] >= self._milli
        enough = (holds.sum(axis=1) >= self._gpus) & (cpu[:, None] >= self._cpu) & (self._milli > 0)
        enough &= self._access[nodes]
        usable = np.where(holds, free[:, :, None], 0).sum(axis=1)
        result: Floats = ((free.sum(axis=1)[:, None] - np.where(enough, usable, 0)) * self._weights).sum(axis=1)
        return result

    def crowding(self, on: Cluster) -> Floats:
        """How much more is asked of a GPU of each node than of one of the least asked model, if as much is asked as
        there is and every pod spreads evenly over the models it accepts. FGD does not look at this."""
        if self._crowding is None:
            load = np.zeros(len(on.gpus))
            asked = max(1, self._asked.total())
            for models, thousandths in self._asked.items():
                able = on.accessible(models)
                load[able] += thousandths / asked * on.gpus.sum() / max(1, int(on.gpus[able].sum()))
            self._crowding = load - load.min()
        return self._crowding

    def growth(self, on: Cluster, pod: Pod, nodes: Ints) -> tuple[Floats, Ints]:
        """How much more would be fragmented with the pod on each node (negative: less), and on which GPU."""
        if pod not in self._known:
            size = len(on.cpu)
            self._known[pod] = np.full(size, -1), np.zeros(size, dtype=np.int64), np.zeros(size)
        version, gpu, grown = self._known[pod]
        stale = nodes[version[nodes] != on.version[nodes]]
        for part in np.array_split(stale, -(-len(stale) // 256)) if len(stale) else ():
            grown[part], gpu[part] = self._grown(on, pod, part)
            version[part] = on.version[part]
        return grown[nodes], gpu[nodes]

    def _grown(self, on: Cluster, pod: Pod, nodes: Ints) -> tuple[Floats, Ints]:
        cpu, free = on.cpu[nodes], on.free[nodes]
        before = self.amount(on, nodes, cpu, free)
        if pod.gpus == 1 and pod.milli < MILLI:
            best, which = np.full(len(nodes), np.inf), np.zeros(len(nodes), dtype=np.int64)
            for gpu in range(MOST):
                able = np.flatnonzero(free[:, gpu] >= pod.milli)
                after = free[able].copy()
                after[:, gpu] -= pod.milli
                grown = self.amount(on, nodes[able], cpu[able] - pod.cpu, after) - before[able]
                better = grown < best[able] - 1e-9
                best[able[better]], which[able[better]] = grown[better], gpu
            return best, which
        after = free.copy()
        taken = np.cumsum(free == MILLI, axis=1)
        after[(free == MILLI) & (taken <= pod.gpus)] = 0
        return self.amount(on, nodes, cpu - pod.cpu, after) - before, np.zeros(len(nodes), dtype=np.int64)

    def __call__(self, on: Cluster, pod: Pod, nodes: Ints, _: np.random.Generator) -> Choice:
        grown, gpus = self.growth(on, pod, nodes)
        node = _highest(points(grown), nodes)
        return node, int(gpus[np.searchsorted(nodes, node)])


def points(grown: Floats) -> npt.NDArray[np.int64]:
    """FGD's score, 0 to 100: what grows by a whole GPU has 26, what shrinks by one 73."""
    return (100 / (1 + np.exp(grown / MILLI))).astype(np.int64)


POLICIES: dict[str, Callable[[Sequence[Pod]], Policy]] = {
    "01-Random": lambda _: random_fit,
    "02-DotProd": lambda _: dot_product,
    "04-GpuPacking": lambda _: gpu_packing,
    "05-BestFit": lambda _: best_fit,
    "06-FGD": Fragmentation,
}
"""By the name in the published table; made for a workload."""


def published() -> dict[tuple[str, str, int], float]:
    """(workload, policy, % arrived) → mean % allocated over the authors' ten seeds."""
    found: dict[tuple[str, str, int], list[float]] = {}
    with (OPENB / "fgd_expected_alloc_by_policy.csv").open() as rows:
        for row in csv.DictReader(rows):
            for at in (100, 130):
                if row[str(at)]:
                    key = (row["workload"].removeprefix("openb_pod_list_"), row["sc_policy"], at)
                    found.setdefault(key, []).append(float(row[str(at)]))
    return {key: fmean(values) for key, values in found.items()}
