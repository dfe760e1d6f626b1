"""Random worlds for allocators: a node, what drivers publish there, what is taken, and claims that may or may not fit.

Every world lives on its own node, with pools named after it, so that hundreds fit into one cluster and none knows of
the others. The same seed makes the same world. Objects are such as an API server of Kubernetes 1.36 accepts.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field

from tests.dra_shapes import Raw, ask, claim_of, class_of, h100, held_claim, slice_of

NVIDIA, OTHER, SHARED = "gpu.nvidia.com", "npu.example.com", "vgpu.example.com"
CLASSES = [
    class_of("gpu", f"device.driver == '{NVIDIA}' && device.attributes['{NVIDIA}'].type == 'gpu'"),
    class_of("mig", f"device.driver == '{NVIDIA}' && device.attributes['{NVIDIA}'].type == 'mig'"),
    class_of("npu", f"device.driver == '{OTHER}'"),
    class_of("vgpu", f"device.driver == '{SHARED}'"),
    class_of("any", "true"),
]
_OWN = f"device.attributes['{NVIDIA}']"
_SELECTORS = [
    f"{_OWN}.?architecture.orValue('') == 'Hopper'",
    f"{_OWN}.?architecture.orValue('') == 'Ampere'",
    "device.attributes['resource.kubernetes.io'].?numaNode.orValue(9) == 0",
    f"device.driver == '{NVIDIA}' && device.capacity['{NVIDIA}'].memory.compareTo(quantity('60Gi')) > 0",
    f"{_OWN}.driverVersion.isGreaterThan(semver('570.0.0'))",  # fails on whatever has no such attribute
    "!device.allowMultipleAllocations",
    f"'uuid' in {_OWN}",
    f"cel.bind(a, {_OWN}, a.?type.orValue('') in ['gpu', 'mig'])",
]
_CONSTRAINTS = [
    {"matchAttribute": "resource.kubernetes.io/numaNode"},
    {"matchAttribute": f"{NVIDIA}/productName"},
    {"distinctAttribute": "resource.kubernetes.io/pcieRoot"},
]


@dataclass
class World:
    """One case; ``claims`` are those of one pod."""

    node: str
    slices: list[Raw] = field(default_factory=list)
    held: list[Raw] = field(default_factory=list)
    claims: list[Raw] = field(default_factory=list)

    def device_names(self) -> list[str]:
        return [
            f"{part['spec']['driver']}/{part['spec']['pool']['name']}/{device['name']}"
            for part in self.slices
            for device in part["spec"].get("devices", [])
        ]


def world(seed: int, node: str, *, lone: bool = False) -> World:
    """The world of a seed on a node; with ``lone`` only what single devices can be asked of, and no claims."""
    rng = random.Random(seed)
    made = World(node)
    kinds = [_gpus, _partitions, _npus] if lone else [_gpus, _partitions, _npus, _shared, _fabric, _spread]
    for build in rng.sample(kinds, rng.randint(1, 3)):
        build(rng, made)
    _hold(rng, made)
    _unsettle(rng, made)
    if not lone:
        for number in range(rng.choice([1, 1, 1, 2])):
            made.claims.append(_claim(rng, made, f"{node}-{number}"))
    return made


def _gpus(rng: random.Random, made: World) -> None:
    devices = []
    for number in range(rng.randint(1, 5)):
        device = h100(number, node=made.node)
        if rng.random() < 0.3:
            device["attributes"] |= {"architecture": {"string": "Ampere"}, "productName": {"string": "NVIDIA A100"}}
            device["capacity"] = {"memory": {"value": "40Gi"}}
        _taint(rng, device)
        devices.append(device)
    made.slices.append(_slice(made, NVIDIA, devices))


def _partitions(rng: random.Random, made: World) -> None:
    """A GPU that can be used whole or in parts; the parts share its counters."""
    driver = NVIDIA if not any(part["spec"]["driver"] == NVIDIA for part in made.slices) else OTHER
    pool = f"{made.node}-parts"

    def uses(slices: int, memory: int) -> list[Raw]:
        amounts = {"slices": {"value": str(slices)}, "memory": {"value": f"{memory}Gi"}}
        return [{"counterSet": "gpu-9", "counters": amounts}]

    whole = h100(9, node=made.node, consumesCounters=uses(7, 80))
    parts = []
    for number in range(rng.randint(1, 4)):
        size = rng.choice([1, 2, 3, 4])
        attributes = {
            "type": {"string": "mig"},
            "profile": {"string": f"{size}g"},
            "uuid": {"string": f"MIG-{made.node}-{number}"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
        }
        part = {"name": f"mig-{number}", "attributes": attributes, "capacity": {"memory": {"value": f"{10 * size}Gi"}}}
        parts.append({**part, "consumesCounters": uses(size, 10 * size)})
    counters = {"slices": {"value": "7"}, "memory": {"value": "80Gi"}}
    for name, spec in (
        ("counters", {"devices": [], "sharedCounters": [{"name": "gpu-9", "counters": counters}]}),
        ("devices", {"devices": [whole, *parts]}),
    ):
        raw = _slice(made, driver, spec["devices"], pool=pool, count=2, name=f"{made.node}-{driver}-{name}")
        made.slices.append({**raw, "spec": {**raw["spec"], **spec}})
        if not spec["devices"]:
            del made.slices[-1]["spec"]["devices"]


def _npus(rng: random.Random, made: World) -> None:
    devices = []
    for number in range(rng.randint(1, 3)):
        attributes = {"serial": {"string": f"{made.node}-{number}"}, "index": {"int": number}}
        if rng.random() < 0.7:
            attributes["resource.kubernetes.io/numaNode"] = {"int": number % 2}
        device: Raw = {"name": f"npu-{number}", "attributes": attributes}
        _taint(rng, device)
        devices.append(device)
    made.slices.append(_slice(made, OTHER, devices, pool=f"{made.node}-npus", name=f"{made.node}-npus"))


def _shared(rng: random.Random, made: World) -> None:
    policies = [
        None,
        {"default": "4Gi", "validRange": {"min": "2Gi", "step": "2Gi", "max": "12Gi"}},
        {"default": "4Gi", "validValues": ["4Gi", "8Gi"]},
    ]
    devices = []
    for number in range(rng.randint(1, 2)):
        memory: Raw = {"value": "16Gi"}
        if policy := rng.choice(policies):
            memory["requestPolicy"] = policy
        devices.append({"name": f"vgpu-{number}", "allowMultipleAllocations": True, "capacity": {"memory": memory}})
    made.slices.append(_slice(made, SHARED, devices))


def _fabric(rng: random.Random, made: World) -> None:
    """Devices that a network reaches from nodes with a label, and that are attached while a pod waits."""
    line = {
        "key": "kubernetes.io/hostname",
        "operator": "In",
        "values": [rng.choice([made.node, made.node, "elsewhere"])],
    }
    devices: list[Raw] = [
        {
            "name": f"fab-{number}",
            "attributes": {"serial": {"string": f"{made.node}-fab-{number}"}},
            "bindsToNode": True,
            "bindingConditions": ["example.com/Attached"],
            "bindingFailureConditions": ["example.com/Failed"],
        }
        for number in range(rng.randint(1, 2))
    ]
    rule = {"nodeSelectorTerms": [{"matchExpressions": [line]}]}
    name = f"{made.node}-fabric"
    made.slices.append(_slice(made, OTHER, devices, pool=name, name=name, nodeSelector=rule))


def _spread(rng: random.Random, made: World) -> None:
    """One slice whose devices belong to different nodes."""
    devices = []
    for number in range(rng.randint(1, 4)):
        attributes = {"serial": {"string": f"{made.node}-far-{number}"}}
        where = rng.choice([made.node, made.node, "elsewhere"])
        devices.append({"name": f"far-{number}", "attributes": attributes, "nodeName": where})
    name = f"{made.node}-spread"
    made.slices.append(_slice(made, OTHER, devices, pool=name, name=name, perDeviceNodeSelection=True))


def _slice(made: World, driver: str, devices: list[Raw], **more: object) -> Raw:
    return slice_of(devices, driver=driver, node=made.node, **{"name": f"{made.node}-{driver}", **more})


def _taint(rng: random.Random, device: Raw) -> None:
    if rng.random() < 0.15:
        effect = rng.choice(["NoSchedule", "NoSchedule", "None"])  # NoExecute is for another controller to act on
        device["taints"] = [{"key": "example.com/sick", "value": rng.choice("ab"), "effect": effect}]


def _hold(rng: random.Random, made: World) -> None:
    """Let claims hold some of the devices; whole ones, shares, and what is not published any more."""
    for number, name in enumerate(made.device_names()):
        if rng.random() < 0.25:
            share = {}
            if name.startswith(SHARED) and rng.random() < 0.8:
                letters = "".join(rng.choices(string.hexdigits.lower()[:16], k=12))
                amount = rng.choice(["2Gi", "8Gi", "14Gi"])
                share = {"shareID": f"00000000-0000-4000-8000-{letters}", "consumedCapacity": {"memory": amount}}
            made.held.append(held_claim(name, name=f"{made.node}-held-{number}", **share))
    if rng.random() < 0.1:
        made.held.append(held_claim(f"{NVIDIA}/{made.node}/gone-0", name=f"{made.node}-held-gone"))


def _unsettle(rng: random.Random, made: World) -> None:
    """Sometimes publish a pool as drivers do in the middle of a change."""
    if rng.random() > 0.3:
        return
    part = rng.choice([part for part in made.slices if part["spec"].get("devices")])
    pool = part["spec"]["pool"]
    siblings = [other for other in made.slices if other["spec"]["pool"]["name"] == pool["name"]]
    change = rng.choice(["a slice is missing", "a new generation has begun", "an old generation is left"])
    if change == "a slice is missing" and any(other["spec"].get("sharedCounters") for other in siblings):
        return  # until 1.36 this stops mode "All" on every node, and with it all other worlds
    if change == "a slice is missing":
        for other in siblings:
            other["spec"]["pool"] = {**other["spec"]["pool"], "resourceSliceCount": pool["resourceSliceCount"] + 1}
    else:
        step = 1 if change == "a new generation has begun" else -1
        again = {**part, "metadata": {"name": f"{part['metadata']['name']}-again"}}
        count = pool["resourceSliceCount"]
        again["spec"] = {**part["spec"], "pool": {**pool, "generation": 5 + step, "resourceSliceCount": count}}
        for other in siblings:
            other["spec"]["pool"] = {**other["spec"]["pool"], "generation": 5}
        made.slices.append(again)


def _claim(rng: random.Random, made: World, name: str) -> Raw:
    requests: list[Raw] = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        if rng.random() < 0.25:
            choices = [{"name": f"a{i}", **_ask(rng, made, admin=False)} for i in range(rng.randint(1, 3))]
            requests.append({"firstAvailable": choices})
        else:
            requests.append(_ask(rng, made, admin=True))
    constraints = [rng.choice(_CONSTRAINTS)] if rng.random() < 0.15 else []
    return claim_of(*requests, name=name, **({"constraints": constraints} if constraints else {}))


def _ask(rng: random.Random, made: World, *, admin: bool) -> Raw:
    wanted: Raw = {}
    device_class = rng.choice(_likely(made) if rng.random() < 0.9 else ["gpu", "mig", "npu", "vgpu"])
    if rng.random() < 0.12:
        wanted["allocationMode"] = "All"
    if rng.random() < 0.3:
        wanted["tolerations"] = [rng.choice([{"operator": "Exists"}, {"key": "example.com/sick", "value": "a"}])]
    if device_class == "vgpu" and rng.random() < 0.7:
        wanted["capacity"] = {"requests": {"memory": rng.choice(["1Gi", "3Gi", "5Gi", "20Gi"])}}
    if admin and rng.random() < 0.08:
        wanted["adminAccess"] = True
    selector = rng.choice(_SELECTORS) if rng.random() < 0.3 else None
    return ask(rng.choice([1, 1, 1, 1, 2, 3]), device_class=device_class, cel=selector, **wanted)


def _likely(made: World) -> list[str]:
    """Classes of which there are devices in this world."""
    names = {"gpu-": "gpu", "mig-": "mig", "npu-": "npu", "fab-": "npu", "far-": "npu", "vgpu": "vgpu"}
    found = {names[name.rpartition("/")[2][:4]] for name in made.device_names()}
    return [*sorted(found), "any"]
