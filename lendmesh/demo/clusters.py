"""The demo's three clusters: who they are, what they have, what is in use, what they lend.

*aurora* has two nodes of eight H100 and one whose GPUs are cut into MIG slices as needed; *borealis* has TPU hosts;
*cirrus* has MI300X and a queue for H100s. Each lends what it doesn't need, so each can be lender and borrower.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clusteragent.kube.interface import (
    CONFIG_MAPS,
    DEVICE_CLASSES,
    LENDING_POLICIES,
    PODS,
    RESOURCE_CLAIMS,
    SECRETS,
    Kind,
    Obj,
)
from clusteragent.kube.sim import SimCluster
from lendmesh import inventories

SYSTEM = "lendmesh-system"


@dataclass(frozen=True)
class Member:
    """A cluster of the demo."""

    name: str
    tenant: str
    about: str
    region: str
    nodes: Sequence[str]
    slices: Sequence[Obj]
    busy: Sequence[tuple[str, str, int]] = ()
    """What local pods hold: (device class, node, devices)."""
    rules: Sequence[dict[str, Any]] = ()
    node_labels: dict[str, str] = field(default_factory=dict)


def members() -> list[Member]:
    """Borrower last: the order in which they are shown."""
    h100s = [slice_ for node in ("aurora-1", "aurora-2") for slice_ in inventories.nvidia_gpus(node)]
    return [
        Member(
            name="aurora",
            tenant="platform",
            about="2 nodes × 8 H100, 1 node with MIG",
            region="eu-north-1",
            nodes=("aurora-1", "aurora-2", "aurora-mig"),
            slices=[*h100s, *inventories.nvidia_mig("aurora-mig", count=2)],
            busy=(("gpu.nvidia.com", "aurora-2", 2), ("mig.nvidia.com", "aurora-mig", 1)),
            node_labels={
                "nvidia.com/cc.mode.state": "on",
                "nvidia.com/cc.ready.state": "true",
                "amd.feature.node.kubernetes.io/snp": "true",
            },
            rules=(
                {
                    "name": "h100",
                    "driver": "gpu.nvidia.com",
                    "selector": "device.attributes['gpu.nvidia.com'].type == 'gpu'",
                    "price": {"amount": "2.40"},
                    "keepBack": {"devices": 2},
                    "minDuration": "1s",
                },
                {
                    "name": "mig",
                    "driver": "gpu.nvidia.com",
                    "selector": "device.attributes['gpu.nvidia.com'].?profile.orValue('') == '1g.10gb'",
                    "price": {"amount": "0.45"},
                    "minDuration": "1s",
                },
            ),
        ),
        Member(
            name="borealis",
            tenant="search",
            about="2 TPU v5e hosts × 4 chips",
            region="us-east-1",
            nodes=("borealis-1", "borealis-2"),
            slices=[slice_ for node in ("borealis-1", "borealis-2") for slice_ in inventories.tpu_host(node)],
            rules=({"name": "tpu", "driver": "tpu.google.com", "price": {"amount": "1.20"}, "minDuration": "1s"},),
        ),
        Member(
            name="cirrus",
            tenant="research",
            about="1 node × 8 MI300X, and a queue for H100s",
            region="eu-west-1",
            nodes=("cirrus-1",),
            slices=inventories.amd_gpus("cirrus-1"),
            busy=(("gpu.amd.com", "cirrus-1", 6),),
            rules=({"name": "mi300x", "driver": "gpu.amd.com", "price": {"amount": "2.10"}, "minDuration": "1s"},),
        ),
    ]


def lending_policy(member: Member) -> Obj:
    """The owner's word on what may be lent."""
    return {
        "apiVersion": LENDING_POLICIES.api_version,
        "kind": LENDING_POLICIES.kind,
        "metadata": {"name": "idle-devices"},
        "spec": {"rules": [dict(rule) for rule in member.rules]},
    }


def simulate(member: Member) -> SimCluster:
    """The member as a simulated cluster, with its local pods already asking for their devices."""
    cluster = SimCluster(member.name)
    cluster.add_namespaces("home", SYSTEM)
    for name in member.nodes:
        cluster.add_node(name, labels={**inventories.place(member.region, f"{member.region}a"), **member.node_labels})
    for device_class in inventories.device_classes():
        cluster.put(DEVICE_CLASSES, device_class)
    for name in ("lendmesh-held", "lendmesh-remote"):
        cluster.put(DEVICE_CLASSES, {"metadata": {"name": name}, "spec": {}})
    cluster.publish(member.slices)
    for kind, name in ((SECRETS, "lendmesh-agent-identity"), (CONFIG_MAPS, "lendmesh-agent-fences")):
        cluster.put(kind, {"metadata": {"name": name, "namespace": SYSTEM}})
    for number, (class_, node, count) in enumerate(member.busy):
        for kind, obj in _local_pod(f"local-{number}", class_, node, count):
            cluster.put(kind, obj)
    return cluster


def _local_pod(name: str, device_class: str, node: str, count: int) -> list[tuple[Kind, Obj]]:
    request = {"name": "devices", "exactly": {"deviceClassName": device_class, "count": count}}
    claim: Obj = {
        "metadata": {"name": name, "namespace": "home"},
        "spec": {"devices": {"requests": [request]}},
    }
    pod: Obj = {
        "metadata": {"name": name, "namespace": "home"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{"name": "work", "image": "work", "resources": {"claims": [{"name": "devices"}]}}],
            "resourceClaims": [{"name": "devices", "resourceClaimName": name}],
        },
    }
    return [(RESOURCE_CLAIMS, claim), (PODS, pod)]
