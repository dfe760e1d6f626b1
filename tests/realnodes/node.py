"""A real node of a running control plane: `RealNode(cluster, name=…, programs=…)`.

Before the node's programs start, the harness makes the Node object itself, with the one address at which the apiserver
reaches this kubelet: a kubelet refuses to call a loopback address its own, so it is told that a cloud provider, which
is this file, takes care of addresses. Then it writes the node's directory, hands it to a keeper (keeper.py), and waits
until the API shows the node Ready and its devices published.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.controlplane.api import until
from tests.controlplane.cluster import CLASSES, SLICES, Cluster
from tests.controlplane.layout import free_port
from tests.realnodes import cgroups, configs, images
from tests.realnodes.programs import Programs

DRIVER = "gpu.example.com"
"""The example driver's name, and that of its DeviceClass."""

_REPOSITORY = Path(__file__).parents[2]


class NodeFailed(RuntimeError):
    """The node did not come up, or went down by itself; the text ends with its last words."""


class RealNode:
    """Kubelet, containerd and the DRA example driver in namespaces of their own, until `stop` or the cluster's end.

    The node lives in the cluster's directory, and ends with the cluster however that ends.

    :param cluster: a running control plane; kwok, where it runs, leaves this node alone.
    :param devices: how many GPUs the driver publishes: `gpu-0` to `gpu-<devices - 1>`.
    """

    def __init__(self, cluster: Cluster, *, name: str, programs: Programs, devices: int = 8) -> None:
        self.cluster = cluster
        self.name = name
        self.devices = devices
        self.directory = cluster.directory / "nodes" / name
        self.logs = cluster.directory / "logs" / name
        self._programs = programs
        self._part = f"node-{name}"
        self._started = False
        if any(self.directory.resolve().is_relative_to(Path(private).resolve()) for private in configs.PRIVATE):
            private = ", ".join(configs.PRIVATE)
            raise ValueError(f"a node has {private} for itself, so its directory cannot lie there: {self.directory}")

    def start(self, *, within: float = 120.0) -> None:
        """Start the node and wait until it is Ready and has published its devices.

        :param within: seconds.
        :raises NodeFailed: one of its programs ended, or it took longer than that.
        """
        self._register()
        self._write_directory()
        self.cluster.keeper.run(
            self._part,
            [sys.executable, "-m", "tests.realnodes.keeper", self.directory],
            log=self.logs / "node.log",
            cwd=_REPOSITORY,
            stop_signal=signal.SIGTERM,
        )
        self._started = True
        try:
            until(self._is_ready, what=f"node {self.name}, Ready", within=within, also=self.check)
            until(self._has_devices, what=f"the devices of {self.name}", within=within, also=self.check)
        except TimeoutError as error:
            raise NodeFailed(f"{error}; {self._last_words()}") from error

    def check(self) -> None:
        """:raises NodeFailed: the node went down by itself."""
        if self._part in self.cluster.keeper.exited():
            raise NodeFailed(f"node {self.name} ended: {self._last_words()}")

    def stop(self) -> None:
        """End the node's whole tree at once, and wait until nothing of it is left on the machine but its logs.

        Its Node object stays, as that of a machine that lost its power. May be repeated.
        """
        if self._started:
            self._started = False
            self.cluster.keeper.stop(self._part)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _register(self) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "127.0.0.1"},
                    {"type": "Hostname", "address": self.name},
                ]
            },
        }
        self.cluster.api.create("/api/v1/nodes", node)
        if self.cluster.api.find(f"{CLASSES}/{DRIVER}") is None:
            self.cluster.api.create(CLASSES, device_class())

    def _write_directory(self) -> None:
        for part in ("etc", configs.REGISTRY, *configs.PRIVATE.values()):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        authority = self.directory / "etc" / "authority.pem"
        authority.write_text(self.cluster.ca_pem.decode())
        plan = configs.NodePlan(
            name=self.name,
            directory=self.directory,
            logs=self.logs,
            cgroup=cgroups.cgroup_name(self.name, owner=self.cluster.keeper.pid),
            port=free_port(),
            devices=self.devices,
            kubelet=self.cluster.parts.command("kubelet"),
            programs=self._programs,
            kubeconfig=self.cluster.kubeconfig_as(f"system:node:{self.name}", groups=["system:nodes"]),
            authority=authority,
        )
        for name, text in configs.files(plan).items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        archive = self.directory / "images.tar"
        images.write_archive(archive, contents=self._programs.contents)
        configs.spec(plan, archive=archive).write(self.directory)

    def _is_ready(self) -> bool:
        node = self.cluster.api.get(f"/api/v1/nodes/{self.name}")
        conditions = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", [])}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _has_devices(self) -> bool:
        slices = self.cluster.api.list(SLICES, fieldSelector=f"spec.nodeName={self.name},spec.driver={DRIVER}")
        return sum(len(one["spec"].get("devices") or []) for one in slices) == self.devices

    def _last_words(self) -> str:
        """The last line of each log: process 1's own first, because it knows which program ended."""
        logs = sorted(self.logs.glob("*.log"), key=lambda log: log.name != "node.log")
        lines = [(log, log.read_text(errors="replace").splitlines()) for log in logs]
        return "; ".join(f"{log.stem}: {said[-1]}" for log, said in lines if said) + f" (logs: {self.logs})"


def device_class() -> dict[str, Any]:
    """The example driver's DeviceClass, as its chart has it."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": DRIVER},
        "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]},
    }
