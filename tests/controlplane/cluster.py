"""One Kubernetes cluster: a real control plane, with nodes and pod phases played by kwok.

`Cluster.start` takes it from nothing to ready; `stop`, or the end of this process however it comes, leaves nothing. In
between it is used like any cluster: by kubeconfig (as admin, or as a service account with exactly its rights), by
kubectl and helm, and by the few calls of `api.Api` a test looks at it with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.controlplane import fixtures
from tests.controlplane.api import Api, until
from tests.controlplane.keeper import CannotRun, Keeper
from tests.controlplane.layout import Flags, Layout
from tests.controlplane.parts import DEFAULT_RELEASE, Parts

Object = dict[str, Any]

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
CLASSES = "/apis/resource.k8s.io/v1/deviceclasses"
STARTS_WITHIN_S = 120.0


class ClusterFailed(RuntimeError):
    """A part of a cluster did not do what it should; the text says which, and where its log is."""


class PortTaken(ClusterFailed):
    """Another process took a port between its choice and its use: worth another try, with other ports."""


class CommandFailed(RuntimeError):
    """kubectl or helm refused; the text is what it said."""


class Cluster:
    """A running cluster. Made by `start`."""

    def __init__(self, name: str, *, parts: Parts, flags: Flags, workdir: Path | None) -> None:
        self.name = name
        self.parts = parts
        self.directory = Path(tempfile.mkdtemp(prefix=f"lendmesh-{name}-", dir=workdir))
        self.keeper = Keeper(removes=[self.directory])
        self._layout = Layout(name, self.directory)
        self._flags = flags
        self.server = self._layout.server
        self.ca_pem = self._layout.authority.pem
        self.kubeconfig = self._layout.admin
        self.api = Api(self.server, tls=self._layout.tls(user="admin", groups=["system:masters"]))

    @classmethod
    def start(
        cls,
        name: str,
        *,
        version: str = DEFAULT_RELEASE,
        parts: Parts | None = None,
        nodes: Sequence[str] = (),
        kwok: bool = True,
        flags: Flags | None = None,
        workdir: Path | None = None,
    ) -> Self:
        """Start a cluster and wait until it is ready: about 4 s on 2 cores, for two at once as for one.

        :param version: the Kubernetes minor version; ignored where `parts` are given.
        :param nodes: names of nodes for kwok to play, Ready when this returns.
        :param kwok: False where real kubelets will join.
        :raises toolchain.CannotBuild: a program is not there and cannot be built.
        :raises ClusterFailed: it did not become ready; its logs stay, and the text says where.
        """
        parts = parts or Parts(version)
        parts.prepare(*CONTROL_PLANE, *(["kwok"] if kwok else []))
        try:
            return cls._start_one(name, parts=parts, nodes=nodes, kwok=kwok, flags=flags or Flags(), workdir=workdir)
        except PortTaken:
            return cls._start_one(name, parts=parts, nodes=nodes, kwok=kwok, flags=flags or Flags(), workdir=workdir)

    @classmethod
    def _start_one(
        cls, name: str, *, parts: Parts, nodes: Sequence[str], kwok: bool, flags: Flags, workdir: Path | None
    ) -> Self:
        cluster = cls(name, parts=parts, flags=flags, workdir=workdir)
        try:
            cluster._start(kwok=kwok)
            cluster.add_nodes(*nodes)
        except BaseException as error:
            failed = isinstance(error, (ClusterFailed, TimeoutError)) and not isinstance(error, PortTaken)
            cluster.stop(keep_directory=failed)
            if isinstance(error, TimeoutError):
                raise ClusterFailed(f"{name}: {error}; logs in {cluster.directory / 'logs'}") from error
            raise
        return cluster

    def stop(self, *, keep_directory: bool = False) -> None:
        """End every process of the cluster and remove its directory."""
        keep = keep_directory or bool(os.environ.get("LENDMESH_KEEP"))
        self.api.close()
        self.keeper.close(keep_directories=keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- parts ----------------------------------------------------------------------------------------------------

    def start_part(self, part: str) -> int:
        """Start (or start again) one part, without waiting for it; return its pid."""
        argv = [*self.parts.command(part), *self._layout.flags(part, self._flags)]
        # A cluster lives for minutes: collecting garbage half as often costs a little memory and saves the CPU.
        env = {"GOGC": os.environ.get("GOGC", "200"), "KWOK_WORKDIR": str(self.directory), "KUBECONFIG": ""}
        return self.keeper.run(part, argv, log=self._layout.log(part), env=env)

    def stop_part(self, part: str) -> None:
        """Kill one part of the control plane, as a crash would."""
        self.keeper.stop(part)

    def wait_ready(self) -> None:
        """Wait until the API server answers and has written its default roles."""
        binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:kube-scheduler"
        self._until(lambda: self.api.text("/readyz") == "ok", what="the API server's readiness")
        self._until(lambda: self.api.find(binding), what="the default roles")

    def _start(self, *, kwok: bool) -> None:
        self.start_part("etcd")
        self.start_part("kube-apiserver")
        self.wait_ready()
        # Earlier, the controller manager exits for want of a right.
        for part in ("kube-controller-manager", "kube-scheduler", *(["kwok"] if kwok else [])):
            self.start_part(part)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._until(lambda: self.api.find(account), what="the default service account")
        scheduler = Api(f"https://127.0.0.1:{self._layout.scheduler_port}", tls=self._layout.tls())
        try:
            self._until(lambda: scheduler.text("/readyz") == "ok", what="the scheduler's readiness")
        finally:
            scheduler.close()

    def _until(self, look: Callable[[], Any], *, what: str) -> None:
        until(look, what=what, within=STARTS_WITHIN_S, also=self._all_alive)

    def _all_alive(self) -> None:
        for part, code in self.keeper.exited().items():
            log = self._layout.log(part)
            taken = log.exists() and "address already in use" in log.read_text(errors="replace")
            raise (PortTaken if taken else ClusterFailed)(
                f"{self.name}: {part} ended with {code}: {_last_line(log)} (all of it: {log})"
            )

    # -- access ---------------------------------------------------------------------------------------------------

    def kubectl(self, *args: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl, as admin unless another kubeconfig is given; return its stdout.

        :raises CommandFailed: it ended with an error.
        """
        return self._command("kubectl", args, stdin=stdin, kubeconfig=kubeconfig)

    def helm(self, *args: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run helm; as `kubectl`."""
        return self._command("helm", args, stdin=stdin, kubeconfig=kubeconfig)

    def apply(self, yaml: str, *, namespace: str | None = None) -> None:
        """Apply manifests (server-side)."""
        where = ["-n", namespace] if namespace else []
        self.kubectl("apply", "--server-side", "-f", "-", *where, stdin=yaml)

    def kubeconfig_as(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for any user and groups (a kubelet's: `system:node:<name>` in `system:nodes`)."""
        return self._layout.kubeconfig(user, groups=groups)

    def token_for(self, namespace: str, service_account: str, *, seconds: int = 3600) -> str:
        """A token of a service account, from the TokenRequest API."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        return str(self.api.create(path, body)["status"]["token"])

    def kubeconfig_for(self, namespace: str, service_account: str, *, seconds: int = 3600) -> Path:
        """A kubeconfig with exactly the rights of a service account."""
        token = self.token_for(namespace, service_account, seconds=seconds)
        return self._layout.write_kubeconfig(f"{namespace}/{service_account}", {"token": token}, namespace=namespace)

    def api_for(self, namespace: str, service_account: str) -> Api:
        """`api` with exactly the rights of a service account. Close it."""
        return Api(self.server, tls=self._layout.tls(), token=self.token_for(namespace, service_account))

    def _command(self, part: str, args: Sequence[str], *, stdin: str | None, kubeconfig: Path | None) -> str:
        home = self.directory / "home"
        env = {
            **os.environ,
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            **{f"HELM_{kind}_HOME": str(home / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
        }
        done = subprocess.run(
            [*self.parts.command(part), *args], input=stdin or "", env=env, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CommandFailed(f"{part} {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    # -- nodes and devices ----------------------------------------------------------------------------------------

    def add_node(self, name: str, *, labels: dict[str, str] | None = None) -> Object:
        """Add a node played by kwok and wait until pods can go there; return it."""
        self.api.create("/api/v1/nodes", fixtures.node(name, labels=labels))
        return self.wait_node(name)

    def add_nodes(self, *names: str) -> list[Object]:
        """Add several at once."""
        for name in names:
            self.api.create("/api/v1/nodes", fixtures.node(name))
        return [self.wait_node(name) for name in names]

    def wait_node(self, name: str) -> Object:
        """Wait until a node is Ready and no longer tainted as not ready; return it."""

        def usable() -> Object | None:
            node = self.api.get(f"/api/v1/nodes/{name}")
            conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
            return node if conditions.get("Ready") == "True" and not node["spec"].get("taints") else None

        node = until(usable, what=f"node {name}, Ready", within=STARTS_WITHIN_S, also=self._all_alive)
        assert node is not None
        return node

    def publish_slices(self, slices: Sequence[Object]) -> None:
        """Publish ResourceSlices as a driver would: created, or put in the place of those of the same name."""
        for one in slices:
            path = f"{SLICES}/{one['metadata']['name']}"
            if there := self.api.find(path):
                version = {"resourceVersion": there["metadata"]["resourceVersion"]}
                self.api.replace(path, {**one, "metadata": {**one["metadata"], **version}})
            else:
                self.api.create(SLICES, one)

    def publish_gpus(self, node: str, *, count: int = 8, product: fixtures.Product = fixtures.H100) -> None:
        """Publish a node's GPUs and, where it is missing, their DeviceClass, as NVIDIA's driver and chart do."""
        owner = self.api.get(f"/api/v1/nodes/{node}")
        if self.api.find(f"{CLASSES}/{fixtures.NVIDIA}") is None:
            self.api.create(CLASSES, fixtures.nvidia_device_class())
        self.publish_slices(fixtures.nvidia_slices(node, count=count, product=product, owner=owner))


def start_clusters(names: Sequence[str], **how: Any) -> list[Cluster]:
    """Start several clusters at the same time; all of them, or none. `how` as of `Cluster.start`."""
    if "parts" not in how:
        how["parts"] = Parts(how.pop("version", DEFAULT_RELEASE))
    with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
        starts = [pool.submit(Cluster.start, name, **how) for name in names]
    if failed := [start.exception() for start in starts if start.exception()]:
        for start in starts:
            if start.exception() is None:
                start.result().stop()
        raise failed[0] or ClusterFailed("a cluster did not start")
    return [start.result() for start in starts]


def keep_logs(clusters: Sequence[Cluster], where: Path) -> None:
    """Copy the logs of clusters to a directory that outlives them."""
    for cluster in clusters:
        shutil.copytree(cluster.directory / "logs", where / cluster.name, dirs_exist_ok=True)


def _last_line(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it wrote no log"
    return lines[-1][:300] if lines else "it wrote no log"


__all__ = ["CannotRun", "Cluster", "ClusterFailed", "CommandFailed", "keep_logs", "start_clusters"]
