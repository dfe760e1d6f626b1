"""The objects of a lease in the borrower's cluster, built; pure.

Remote claims say in DRA's own words what this cluster now has elsewhere: class ``lendmesh-remote``, allocated by us to
proxy devices of our own driver, which nobody else writes and no slice publishes; each entry of ``status.devices`` names
the real device. A Secret holds the kubeconfig that reaches the lease's namespace in the lender's cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.wire.leases import LeaseBody, LeaseClaims, LeasedDevice
from clusteragent.holding import MAX_DEVICES_A_CLAIM, entry
from clusteragent.kube.interface import Obj
from clusteragent.record import labels, stamp

REMOTE_CLASS = "lendmesh-remote"
DRIVER = "lendmesh.dev"
VIRTUAL_NODE = "lendmesh.dev/virtual-node"
REQUEST = "devices"
MAX_TOKEN_IN_CLAIM = 9_000
"""Bytes: ``status.devices[].data`` may have 10 KiB. A longer token stands in the DeviceLease alone."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a lease that one remote claim shows."""

    name: str
    first: int
    devices: tuple[LeasedDevice, ...]


def parts(body: LeaseBody) -> list[Part]:
    """The lease's devices, split for claims; always the same way."""
    devices = sorted(body.devices, key=lambda device: (device.node or "", device.driver, device.pool, device.name))
    starts = range(0, len(devices), MAX_DEVICES_A_CLAIM)
    return [
        Part(f"{body.id}-{number}", start, tuple(devices[start : start + MAX_DEVICES_A_CLAIM]))
        for number, start in enumerate(starts)
    ]


def claim(body: LeaseBody, part: Part, *, namespace: str) -> Obj:
    request = {
        "name": REQUEST,
        "exactly": {"deviceClassName": REMOTE_CLASS, "allocationMode": "ExactCount", "count": len(part.devices)},
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": part.name, "namespace": namespace, "labels": labels(body.id, "borrower")},
        "spec": {"devices": {"requests": [request]}},
    }


def claim_status(claims: LeaseClaims, part: Part, *, token: str, lease_uid: str, now: datetime) -> Obj:
    """Allocation, reservation and what each proxy device stands for."""
    body = claims.lease
    results = [
        {"request": REQUEST, "driver": DRIVER, "pool": body.lender, "device": _proxy(body, part.first + number)}
        for number in range(len(part.devices))
    ]
    selector = {"matchExpressions": [{"key": VIRTUAL_NODE, "operator": "In", "values": [body.lender]}]}
    return {
        "allocation": {"devices": {"results": results}, "nodeSelector": {"nodeSelectorTerms": [selector]}},
        "reservedFor": [entry(body.id, lease_uid)],
        "devices": [
            {
                "driver": DRIVER,
                "pool": body.lender,
                "device": _proxy(body, part.first + number),
                "conditions": _leased(claims, now),
                "data": _data(claims, device, token=token if number == 0 else None),
            }
            for number, device in enumerate(part.devices)
        ],
    }


def secret(body: LeaseBody, *, namespace: str, lease_uid: str) -> Obj:
    """Without its content, which is put in when it is opened."""
    owner = {
        "apiVersion": "lendmesh.dev/v1alpha1",
        "kind": "DeviceLease",
        "name": body.id,
        "uid": lease_uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": secret_name(body.id),
            "namespace": namespace,
            "labels": labels(body.id, "borrower"),
            "ownerReferences": [owner],
        },
    }


def secret_name(lease: str) -> str:
    return f"{lease}-kubeconfig"


def shown_end(status: Obj) -> str | None:
    """The expiry that a claim shows already, so that a renewal is seen to be missing."""
    devices: Sequence[Any] = status.get("devices") or []
    return str(devices[0].get("data", {}).get("expiresAt")) if devices else None


def _proxy(body: LeaseBody, number: int) -> str:
    """A name of our own for a borrowed device, unique in the lender's pool."""
    return f"{body.id}-{number}"


def _leased(claims: LeaseClaims, now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "type": "Leased",
            "status": "True",
            "reason": "Signed",
            "message": f"leased from {claims.lease.lender}",
            "lastTransitionTime": stamp(now),
        }
    ]


def _data(claims: LeaseClaims, device: LeasedDevice, *, token: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "lease": claims.jti,
        "lender": claims.lease.lender,
        "device": {"driver": device.driver, "pool": device.pool, "name": device.name, "node": device.node},
        "key": device.key,
        "fence": device.fence,
        "expiresAt": stamp(datetime.fromtimestamp(claims.exp, tz=UTC)),
    }
    if token is not None and len(token) <= MAX_TOKEN_IN_CLAIM:
        data["token"] = token
    return data
