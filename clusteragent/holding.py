"""The objects of a lease in the lender's cluster, built and read; pure.

A namespace of its own, fenced in; in it a claim for every node and at most 32 devices (the API's limit), each request
pinned to one device by CEL, and for every claim a placeholder pod, pinned to the node, that makes the scheduler
allocate it (kube.md §4). CEL can't see a device's name, pool or node, so pin and node affinity together name the
device, and the allocation is compared with the lease afterwards.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from broker.wire.devices import DeviceId
from broker.wire.leases import LeaseBody, LeasedDevice
from clusteragent.kube.interface import Kind, Obj
from clusteragent.record import LEASE_LABEL, labels

HELD_CLASS = "lendmesh-held"
ACCOUNT, QUOTA, ISOLATION = "borrower", "lease", "default-deny"
MAX_DEVICES_A_CLAIM = 32
EXTENDED_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "google.com/tpu")
"""Devices that a device plugin gives out past every claim; a borrower gets none of them."""
API_GROUP, RESOURCE = "lendmesh.dev", "deviceleases"
_OWN_TAINTS = "node.kubernetes.io/"
"""Kubernetes' own words for a node that must not be used now; they are respected."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a lease that one claim holds."""

    index: int
    node: str | None
    devices: tuple[LeasedDevice, ...]

    @property
    def claim(self) -> str:
        return f"held-{self.index}"

    @property
    def pod(self) -> str:
        return f"hold-{self.index}"


def chunks(body: LeaseBody) -> list[Chunk]:
    """The lease's devices, split for claims; always the same way."""
    ordered = sorted(body.devices, key=lambda device: (device.node or "", device.driver, device.pool, device.name))
    found: list[Chunk] = []
    for node, group in groupby(ordered, key=lambda device: device.node):
        devices = list(group)
        for start in range(0, len(devices), MAX_DEVICES_A_CLAIM):
            found.append(Chunk(len(found), node, tuple(devices[start : start + MAX_DEVICES_A_CLAIM])))
    return found


def namespace_of(lease: str) -> str:
    return f"lendmesh-{lease}"


def ref(device: DeviceId) -> str:
    """A device's name within its cluster, as reports and fences have it."""
    return f"{device.driver}/{device.pool}/{device.name}"


def namespace(lease: str) -> Obj:
    guarded = {**labels(lease, "lender"), "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace_of(lease), "labels": guarded}}


def claim(body: LeaseBody, chunk: Chunk, *, pins: Mapping[str, str]) -> Obj:
    """One request per device, so that each result says for which device it is.

    ``pins``: for every device (``ref``) the CEL that is true for it and, on its node, for no other.
    """
    requests = [
        {
            "name": f"d{number}",
            "exactly": {
                "deviceClassName": HELD_CLASS,
                "allocationMode": "ExactCount",
                "count": 1,
                "selectors": [{"cel": {"expression": pins[ref(device)]}}],
            },
        }
        for number, device in enumerate(chunk.devices)
    ]
    spec = {"devices": {"requests": requests}}
    return _object("resource.k8s.io/v1", "ResourceClaim", chunk.claim, body.id, spec=spec)


def pod(body: LeaseBody, chunk: Chunk, *, image: str, node: Obj | None) -> Obj:
    """The placeholder: sleeps, asks for next to nothing, and is allowed under Pod Security ``restricted``."""
    container = {
        "name": "hold",
        "image": image,
        "resources": {
            "requests": {"cpu": "1m", "memory": "4Mi"},
            "limits": {"memory": "16Mi"},
            "claims": [{"name": "devices"}],
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec: dict[str, Any] = {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65_534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "resourceClaims": [{"name": "devices", "resourceClaimName": chunk.claim}],
    }
    if chunk.node is not None:
        field = {"key": "metadata.name", "operator": "In", "values": [chunk.node]}
        required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    if tolerations := _tolerations(node):
        spec["tolerations"] = tolerations
    return _object("v1", "Pod", chunk.pod, body.id, spec=spec)


def account(body: LeaseBody) -> Obj:
    return {**_object("v1", "ServiceAccount", ACCOUNT, body.id), "automountServiceAccountToken": False}


def binding(body: LeaseBody, *, role: str) -> Obj:
    """The borrower's account may do in this namespace, and nowhere else, what the chart's role says."""
    return {
        **_object("rbac.authorization.k8s.io/v1", "RoleBinding", ACCOUNT, body.id),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace_of(body.id)}],
    }


def quota(body: LeaseBody) -> Obj:
    """Exactly our claims, and no devices past them."""
    hard = {
        "count/resourceclaims.resource.k8s.io": str(len(chunks(body))),
        "count/resourceclaimtemplates.resource.k8s.io": "0",
        "count/services": "0",
        **{f"requests.{name}": "0" for name in EXTENDED_RESOURCES},
    }
    return _object("v1", "ResourceQuota", QUOTA, body.id, spec={"hard": hard})


def isolation(body: LeaseBody) -> Obj:
    """No traffic in, no traffic out."""
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return _object("networking.k8s.io/v1", "NetworkPolicy", ISOLATION, body.id, spec=spec)


def allocated_to(claim: Obj) -> set[str] | None:
    """The devices a claim has (``driver/pool/name``), or None while it has none."""
    allocation = claim.get("status", {}).get("allocation")
    if allocation is None:
        return None
    results = allocation.get("devices", {}).get("results") or []
    return {f"{result['driver']}/{result['pool']}/{result['device']}" for result in results}


def entry(lease: str, uid: str) -> dict[str, str]:
    """Our line in a claim's ``reservedFor``: while it stands, nobody deallocates the claim."""
    return {"apiGroup": API_GROUP, "resource": RESOURCE, "name": lease, "uid": uid}


def kept(claim: Obj, lease: str) -> bool:
    """Our line is there."""
    reserved = claim.get("status", {}).get("reservedFor") or []
    return any(is_ours(each) and each.get("name") == lease for each in reserved)


def is_ours(reserved: Mapping[str, str]) -> bool:
    """A reservation for a lease, as against one for a pod."""
    return (reserved.get("apiGroup"), reserved.get("resource")) == (API_GROUP, RESOURCE)


def unschedulable(pod: Obj) -> str | None:
    """The scheduler's sentence, where it found no place for the pod."""
    for condition in pod.get("status", {}).get("conditions") or []:
        told = (condition.get("type"), condition.get("status"), condition.get("reason"))
        if told == ("PodScheduled", "False", "Unschedulable"):
            return str(condition.get("message", ""))[:500]
    return None


def lease_of(obj: Obj) -> str | None:
    """The lease an object belongs to, by its label."""
    found = (obj["metadata"].get("labels") or {}).get(LEASE_LABEL)
    return str(found) if found else None


def _object(api_version: str, kind: str, name: str, lease: str, *, spec: Mapping[str, Any] | None = None) -> Obj:
    metadata = {"name": name, "namespace": namespace_of(lease), "labels": labels(lease, "lender")}
    made: Obj = {"apiVersion": api_version, "kind": kind, "metadata": metadata}
    if spec is not None:
        made["spec"] = dict(spec)
    return made


def _tolerations(node: Obj | None) -> list[dict[str, str]]:
    """For what taints the node of the devices, as GPU nodes often are; not for a node that is going or gone."""
    taints: Iterable[Mapping[str, str]] = (node or {}).get("spec", {}).get("taints") or []
    return [
        {"key": taint["key"], "operator": "Equal", "value": taint.get("value", ""), "effect": taint["effect"]}
        for taint in taints
        if not taint["key"].startswith(_OWN_TAINTS) and taint["effect"] in ("NoSchedule", "NoExecute")
    ]


__all__ = [
    "ACCOUNT",
    "HELD_CLASS",
    "ISOLATION",
    "QUOTA",
    "Chunk",
    "Kind",
    "account",
    "allocated_to",
    "binding",
    "chunks",
    "claim",
    "entry",
    "is_ours",
    "isolation",
    "kept",
    "lease_of",
    "namespace",
    "namespace_of",
    "pod",
    "quota",
    "ref",
    "unschedulable",
]
