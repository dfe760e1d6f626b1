"""The agent's durable memory of a lease: its DeviceLease object.

Everything the agent must know when the broker is away and the process is new stands here: what is leased, the signed
token with its end, until when an unsigned hold may last. The object is for people too, so the columns that ``kubectl
get devicelease`` shows are fields of their own.
"""

import base64
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import ValidationError

from broker.wire.leases import LeaseBody, LeaseClaims
from clusteragent.kube.interface import DEVICE_LEASES, Obj

Role = Literal["lender", "borrower"]
LEASE_LABEL = "lendmesh.dev/lease"
ROLE_LABEL = "lendmesh.dev/role"
MANAGED_BY = {"app.kubernetes.io/managed-by": "lendmesh"}


@dataclass(frozen=True)
class Record:
    """A DeviceLease object, read."""

    body: LeaseBody
    role: Role
    namespace: str
    uid: str
    token: str | None = None
    hold_until: datetime | None = None
    phase: str = ""
    deleting: bool = False

    @property
    def id(self) -> str:
        return self.body.id

    @cached_property
    def claims(self) -> LeaseClaims | None:
        """What the kept token says. It was verified before it was kept, so only its shape is looked at here."""
        if self.token is None:
            return None
        try:
            payload = self.token.split(".")[1]
            return LeaseClaims.model_validate_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (ValueError, IndexError):
            return None


class Records:
    """DeviceLeases, each read once for every version of it."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], tuple[Obj, Record | None]] = {}

    def of(self, obj: Obj) -> Record | None:
        """As ``read``."""
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        known = self._read.get(key)
        if known is None or known[0] is not obj:
            known = self._read[key] = (obj, read(obj))
        return known[1]

    def forget(self, obj: Obj) -> None:
        self._read.pop((obj["metadata"]["namespace"], obj["metadata"]["name"]), None)


def labels(lease: str, role: Role) -> dict[str, str]:
    """On every object of a lease, so that all of them can be found without knowing their names."""
    return {LEASE_LABEL: lease, ROLE_LABEL: role, **MANAGED_BY}


def make(body: LeaseBody, *, role: Role, namespace: str, token: str | None, hold_until: datetime | None) -> Obj:
    """The DeviceLease object of a lease."""
    spec: dict[str, Any] = {
        "role": role,
        "lender": body.lender,
        "borrower": body.borrower,
        "tenant": body.tenant,
        "devices": len(body.devices),
        "model": body.kind.model,
        "lease": body.model_dump(mode="json", exclude_none=True),
    }
    if token is not None:
        spec["token"] = token
    if hold_until is not None:
        spec["holdUntil"] = stamp(hold_until)
    return {
        "apiVersion": DEVICE_LEASES.api_version,
        "kind": DEVICE_LEASES.kind,
        "metadata": {"name": body.id, "namespace": namespace, "labels": labels(body.id, role)},
        "spec": spec,
    }


def read(obj: Obj) -> Record | None:
    """The record in a DeviceLease object; None when it isn't one that this version can read."""
    spec, metadata = obj.get("spec", {}), obj["metadata"]
    try:
        return Record(
            body=LeaseBody.model_validate(spec["lease"]),
            role="lender" if spec["role"] == "lender" else "borrower",
            namespace=metadata["namespace"],
            uid=metadata.get("uid", ""),
            token=spec.get("token"),
            hold_until=datetime.fromisoformat(spec["holdUntil"]) if spec.get("holdUntil") else None,
            phase=obj.get("status", {}).get("phase", ""),
            deleting=metadata.get("deletionTimestamp") is not None,
        )
    except (KeyError, ValueError, ValidationError, TypeError):
        return None


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it (RFC 3339, UTC)."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def role_of(obj: Obj) -> str | None:
    """On which side of a lease an object is, by its label."""
    found = (obj["metadata"].get("labels") or {}).get(ROLE_LABEL)
    return str(found) if found else None
