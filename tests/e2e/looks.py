"""What a person would look at with kubectl, as values to compare."""

from __future__ import annotations

from typing import Any

from tests.controlplane.cluster import Cluster

CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"
LEASES = "/apis/lendmesh.dev/v1alpha1/deviceleases"
Object = dict[str, Any]


def items(cluster: Cluster, path: str) -> list[Object]:
    return list(cluster.api.get(path)["items"])


def claims_of(cluster: Cluster, lease: str) -> list[Object]:
    """The ResourceClaims of a lease."""
    return [
        one for one in items(cluster, CLAIMS) if one["metadata"].get("labels", {}).get("lendmesh.dev/lease") == lease
    ]


def holds(claim: Object) -> set[str]:
    """The devices a claim is allocated, as driver/pool/device."""
    results = claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
    return {f"{one['driver']}/{one['pool']}/{one['device']}" for one in results}


def in_claims(cluster: Cluster) -> list[str]:
    """Every device in every claim of a cluster; one that appears twice is in two claims."""
    return sorted(device for claim in items(cluster, CLAIMS) for device in holds(claim))


def phase(cluster: Cluster, name: str, namespace: str = "home") -> str:
    """A pod's phase, or Gone."""
    found = cluster.api.find(f"/api/v1/namespaces/{namespace}/pods/{name}")
    return str(found["status"].get("phase", "")) if found else "Gone"


def left_behind(cluster: Cluster, lease: str) -> list[str]:
    """What of a lease is still in a cluster: nothing, once it has ended."""
    label = {"lendmesh.dev/lease": lease}
    found = []
    for path in (CLAIMS, LEASES, "/api/v1/namespaces", "/api/v1/pods", "/api/v1/secrets", "/api/v1/resourcequotas"):
        for one in items(cluster, path):
            metadata = one["metadata"]
            if (
                lease in metadata["name"]
                or lease in metadata.get("namespace", "")
                or (metadata.get("labels", {}).items() >= label.items())
            ):
                found.append(f"{path.rsplit('/', 1)[1]} {metadata.get('namespace', '')}/{metadata['name']}")
    return found
