"""What a real cluster needs before the demo's agent can work there: made where it is missing, removed at the end.

The chart need not be installed. Everything made here is labelled as the demo's and only that is removed, so that a
cluster is left as it was found. Objects with that label which are there already are what a demo left that was killed;
they are taken over and go at the end as well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from clusteragent.fences import CONFIG_MAP
from clusteragent.identity import SECRET
from clusteragent.kube.interface import (
    BURST_POLICIES,
    CAPACITY_REQUESTS,
    CONFIG_MAPS,
    DEVICE_CLASSES,
    DEVICE_LEASES,
    LENDING_POLICIES,
    NAMESPACES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    SECRETS,
    Forbidden,
    Kind,
    Kube,
    KubeError,
    NotFound,
    Obj,
)
from lendmesh.demo import manifests
from lendmesh.demo.clusters import SYSTEM
from lendmesh.demo.federation import NotReady

KINDS = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
CLUSTER_ROLES = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
OURS: Mapping[str, str] = {"app.kubernetes.io/managed-by": "lendmesh-demo"}
OF_A_LEASE = "lendmesh.dev/lease"
POLICY = "lendmesh-demo"
PATIENCE_S = 30
LOOK_S = 0.05


@dataclass
class Furnished:
    """One cluster, and what the demo made in it (the last first when it goes)."""

    name: str
    kube: Kube
    made: list[tuple[Kind, str, str | None]] = field(default_factory=list)

    async def furnish(self, *, lends: bool) -> None:
        """Make what is missing. Raises ``NotReady`` with what to do."""
        try:
            await self._has_no_other_agent()
            await self._put(NAMESPACES, {"metadata": {"name": SYSTEM}})
            await self._put(CONFIG_MAPS, {"metadata": {"name": CONFIG_MAP, "namespace": SYSTEM}})
            for definition in manifests.kinds():
                await self._put(KINDS, definition)
            for kind in (LENDING_POLICIES, BURST_POLICIES, DEVICE_LEASES, CAPACITY_REQUESTS):
                await _until(partial(_served, self.kube, kind), what=f"{self.name} serves {kind.plural}")
            for device_class in manifests.device_classes():
                await self._put(DEVICE_CLASSES, device_class)
            await self._put(CLUSTER_ROLES, manifests.borrower_role())
            if lends and not await self.kube.list(LENDING_POLICIES):
                await self._put(LENDING_POLICIES, default_policy())
        except Forbidden as refused:
            raise NotReady(
                f"{self.name} doesn't let you: {refused}. The demo needs a kubeconfig of an administrator"
            ) from refused
        except KubeError as refused:
            raise NotReady(f"{self.name} refused: {refused}") from refused

    async def clear(self) -> list[str]:
        """Remove everything that was made; returns what would not go."""
        if any(kind == KINDS for kind, _, _ in self.made):
            # The kinds are the demo's, so every lease of this cluster is: also those of a demo that was killed.
            await self._sweep()
        for kind, name, namespace in reversed(self.made):
            await self.kube.delete(kind, name, namespace=namespace)
        return [
            f"{kind.kind} {name}"
            for kind, name, namespace in self.made
            if not await _until(partial(self._gone, kind, name, namespace), what=None)
        ]

    async def _has_no_other_agent(self) -> None:
        try:
            await self.kube.list(RESOURCE_SLICES)
        except NotFound as missing:
            raise NotReady(
                f"{self.name} doesn't serve resource.k8s.io: dynamic resource allocation needs Kubernetes 1.34 or newer"
            ) from missing
        identity = await _find(self.kube, SECRETS, SECRET, SYSTEM)
        if identity is not None and identity.get("data"):
            raise NotReady(
                f"{self.name} is a member of a federation already, and two agents would be in each other's way. "
                f"Ask its broker (`lendmesh offers`), or leave it first: helm uninstall lendmesh -n {SYSTEM}"
            )

    async def _put(self, kind: Kind, obj: Obj) -> None:
        metadata = obj["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace")
        there = await _find(self.kube, kind, name, namespace)
        if there is None:
            labelled = {**obj, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **OURS}}}
            await self.kube.create(kind, labelled)
        elif not OURS.items() <= (there["metadata"].get("labels") or {}).items():
            return
        self.made.append((kind, name, namespace))

    async def _sweep(self) -> None:
        for kind in (DEVICE_LEASES, RESOURCE_CLAIMS, SECRETS, NAMESPACES):
            for obj in await self.kube.list(kind):
                if OF_A_LEASE in (obj["metadata"].get("labels") or {}):
                    await self.kube.delete(kind, obj["metadata"]["name"], namespace=obj["metadata"].get("namespace"))

    async def _gone(self, kind: Kind, name: str, namespace: str | None) -> bool:
        return await _find(self.kube, kind, name, namespace) is None


def default_policy() -> Obj:
    """Everything idle for a dollar, nothing kept back: for a lender that has no policy of its own."""
    rule: dict[str, Any] = {
        "name": "everything-idle",
        "price": {"amount": "1.00"},
        "minDuration": "1s",
        "minimumRuntime": "0s",
    }
    return {"metadata": {"name": POLICY}, "spec": {"rules": [rule]}}


async def _find(kube: Kube, kind: Kind, name: str, namespace: str | None) -> Obj | None:
    try:
        return await kube.get(kind, name, namespace)
    except NotFound:
        return None


async def _served(kube: Kube, kind: Kind) -> bool:
    try:
        await kube.list(kind)
    except NotFound:
        return False
    return True


async def _until(look: Callable[[], Awaitable[bool]], *, what: str | None) -> bool:
    """Whether it came true in time; with ``what``, ``NotReady`` when it didn't."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await look():  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        if what is not None:
            raise NotReady(f"not seen within {PATIENCE_S} s: {what}") from None
        return False
    return True
