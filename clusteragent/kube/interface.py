"""The few calls to Kubernetes that the agent makes, and nothing of how they are made.

Objects are plain JSON dictionaries, as the API has them: the agent touches a dozen kinds and reads a handful of fields
of each, so classes would only stand between it and the documentation. Two things implement ``Kube``:
``clusteragent.kube.real`` speaks to an API server, ``clusteragent.kube.sim`` is a simulated cluster in memory with the
scheduler's allocation rules.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type: enough to make its URL."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Kind("", "v1", "nodes", "Node", namespaced=False)
PODS = Kind("", "v1", "pods", "Pod")
SECRETS = Kind("", "v1", "secrets", "Secret")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount")
RESOURCE_QUOTAS = Kind("", "v1", "resourcequotas", "ResourceQuota")
EVENTS = Kind("", "v1", "events", "Event")
ROLES = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NETWORK_POLICIES = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
RESOURCE_CLAIMS = Kind("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
RESOURCE_SLICES = Kind("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)
DEVICE_CLASSES = Kind("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False)
DEVICE_TAINT_RULES = Kind("resource.k8s.io", "v1", "devicetaintrules", "DeviceTaintRule", namespaced=False)
DEVICE_LEASES = Kind("lendmesh.dev", "v1alpha1", "deviceleases", "DeviceLease")
LENDING_POLICIES = Kind("lendmesh.dev", "v1alpha1", "lendingpolicies", "LendingPolicy", namespaced=False)
BURST_POLICIES = Kind("lendmesh.dev", "v1alpha1", "burstpolicies", "BurstPolicy", namespaced=False)
CAPACITY_REQUESTS = Kind("lendmesh.dev", "v1alpha1", "capacityrequests", "CapacityRequest")


class KubeError(Exception):
    """The API server refused. Network trouble is an ``OSError`` and none of these: it is not the API server's word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({status} {reason})")
        self.status, self.reason, self.message = status, reason, message


class NotFound(KubeError):
    """There is no such object (404)."""


class AlreadyExists(KubeError):
    """An object of this name is there already (409 AlreadyExists)."""


class Conflict(KubeError):
    """Somebody changed the object since it was read (409 Conflict)."""


class Forbidden(KubeError):
    """RBAC or an admission rule said no (401, 403)."""


class Invalid(KubeError):
    """The API server found the object invalid (400, 422)."""


class Gone(KubeError):
    """The resource version is too old to watch from: list again (410)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One turn of a list-then-watch.

    ``type`` is ADDED, MODIFIED or DELETED with an object; LISTED with None when a full listing has just been
    delivered: everything before it, since the last LISTED or RELISTING, is all there is; RELISTING with None before a
    new listing begins (the watch was lost or its version too old).
    """

    type: str
    obj: Obj | None = None


class Kube(Protocol):
    """A cluster, as far as the agent can see it."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Obj:
        """The object, or ``NotFound``."""
        ...

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Obj]:
        """All objects of a kind (``namespace`` None: everywhere), with ``apiVersion`` and ``kind`` filled in."""
        ...

    def watch(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event]:
        """List, say so, watch; on a lost or too old watch list again. Never ends by itself."""
        ...

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        """Create; ``AlreadyExists`` when the name is taken."""
        ...

    async def replace(self, kind: Kind, obj: Obj, *, status: bool = False) -> Obj:
        """PUT the object, or its status; ``Conflict`` when ``metadata.resourceVersion`` is not the newest."""
        ...

    async def merge(
        self, kind: Kind, name: str, patch: Mapping[str, Any], *, namespace: str | None = None, status: bool = False
    ) -> Obj:
        """JSON merge patch (RFC 7386) of the object, or of its status."""
        ...

    async def delete(
        self, kind: Kind, name: str, *, namespace: str | None = None, uid: str | None = None, grace_s: int | None = None
    ) -> None:
        """Delete, with the object's own grace or ``grace_s``; a missing object (or another ``uid``) is no error."""
        ...

    async def token(self, namespace: str, service_account: str, *, seconds: int, audience: str | None = None) -> str:
        """A short-lived token of a service account (TokenRequest; the API's least is 600 s)."""
        ...

    async def version(self) -> tuple[int, int]:
        """Major and minor version of the API server."""
        ...

    @property
    def server(self) -> str:
        """The API server's URL, for a borrower's kubeconfig."""
        ...

    @property
    def ca_pem(self) -> str:
        """The CA that signed the API server's certificate, PEM; empty when the system's own are used."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
