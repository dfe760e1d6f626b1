"""What the programs of a node are told: pure functions from a `NodePlan` to their configuration files.

Inside its mount namespace a node has `/var/lib`, `/var/log` and `/run` for itself, so every program keeps its usual
paths and a node looks, from inside, like any other. What two nodes on one machine do share is the network namespace
and the cgroup tree: their ports, pod addresses and cgroup roots are in the plan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.realnodes.images import PAUSE
from tests.realnodes.inside import Spec
from tests.realnodes.programs import Programs

CDI_DIR = "/run/cdi"
"""Where the driver writes what a prepared device does to a container, and containerd reads it (CDI specification)."""

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

PRIVATE = {"/var/lib": "var-lib", "/var/log": "var-log", "/run": "run"}
"""What a node has for itself → where in its directory that is."""

REGISTRY = f"{PRIVATE['/var/lib']}/kubelet/plugins_registry"
"""Made beforehand, so that the driver need not wait for the kubelet to make it."""

SYSCTLS = {
    # The kubelet sets these for the machine it thinks is its own (pkg/kubelet/cm: setupKernelTunables).
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
    # The ptp plugin turns forwarding on; pods of these tests need no way out.
    "net/ipv4/ip_forward": "1",
}
"""Kernel settings that a node's programs would change machine-wide: they are shown these values already set, in files
of the node's own, bound over the real ones."""


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """Everything about one node that is decided before it starts."""

    name: str
    directory: Path
    """Where it keeps its things, seen from outside and from inside at the same path."""
    logs: Path
    """The directory of its programs' logs."""
    cgroup: str
    """Name of its cgroup, directly under the root of every hierarchy."""
    port: int
    """The kubelet's, on 127.0.0.1."""
    devices: int
    """How many fake GPUs the driver publishes."""
    kubelet: tuple[str, ...]
    """The words that start the kubelet of the control plane's version."""
    programs: Programs
    kubeconfig: Path
    """How kubelet and driver reach the apiserver: both as the node, with the rights the node authorizer gives it."""
    authority: Path
    """The cluster's certificate authority, by which the kubelet knows who calls it."""

    @property
    def pod_subnet(self) -> str:
        """Unlike any other node's on this machine, because the port is."""
        return f"10.{self.port >> 8}.{self.port & 255}.0/24"


def files(plan: NodePlan) -> dict[str, str]:
    """The files of a node apart from its credentials: path in its directory → text."""
    return {
        "etc/containerd.toml": containerd_config(plan),
        "etc/kubelet.json": kubelet_config(plan),
        f"{PRIVATE['/var/lib']}/cni/net.d/10-ptp.conflist": cni_config(plan),
        **{_stand_in(sysctl): f"{value}\n" for sysctl, value in SYSCTLS.items()},
    }


def spec(plan: NodePlan, *, archive: Path) -> Spec:
    """What process 1 of the node does; `archive` holds the images."""
    etc, programs = plan.directory / "etc", plan.programs
    containerd_address = ["--address", CONTAINERD_SOCKET]
    return Spec(
        cgroup=plan.cgroup,
        binds={
            **{target: str(plan.directory / source) for target, source in PRIVATE.items()},
            **{f"/proc/sys/{sysctl}": str(plan.directory / _stand_in(sysctl)) for sysctl in SYSCTLS},
        },
        logs=str(plan.logs),
        path=f"{programs.shim.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        containerd=[str(programs.containerd), "--config", str(etc / "containerd.toml")],
        import_images=[str(programs.ctr), *containerd_address, "-n", "k8s.io", "images", "import", str(archive)],
        programs={
            "kubelet": [
                *plan.kubelet,
                f"--config={etc / 'kubelet.json'}",
                f"--kubeconfig={plan.kubeconfig}",
                f"--hostname-override={plan.name}",
                "--cloud-provider=external",
            ],
            "driver": [
                # By the environment and not by a flag: it is also the seed of the devices' unique ids.
                "env",
                f"NODE_NAME={plan.name}",
                str(programs.driver),
                f"--kubeconfig={plan.kubeconfig}",
                f"--num-devices={plan.devices}",
                f"--cdi-root={CDI_DIR}",
            ],
        },
    )


def containerd_config(plan: NodePlan) -> str:
    """Containerd's configuration, version 3. NRI off: nothing here uses it, and it listens on a path of its own."""
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
imports = []

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_cdi = true
cdi_spec_dirs = ["{CDI_DIR}"]

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{plan.programs.cni}"]
conf_dir = "/var/lib/cni/net.d"
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{plan.programs.runc}"

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true
"""


def cni_config(plan: NodePlan) -> str:
    """One point-to-point link a pod, no masquerading: a pod has an address, and no way off the machine."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": f"lendmesh-{plan.name}",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/var/lib/cni/networks",
                        "ranges": [[{"subnet": plan.pod_subnet}]],
                    },
                }
            ],
        }
    )


def kubelet_config(plan: NodePlan) -> str:
    """The kubelet's configuration (kubelet.config.k8s.io/v1beta1), as JSON, which it reads as YAML."""
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": plan.port,
        "healthzPort": 0,
        # Who the caller is, its certificate says; what it may do, the apiserver says.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plan.authority)},
        },
        "authorization": {"mode": "Webhook"},
        # The harness makes the Node object, with the loopback address that a kubelet would not choose for itself.
        "registerNode": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.cgroup}",
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "syncFrequency": "5s",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # Its images cannot be pulled again, and a full disk is the machine's business: collect and evict nothing.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "20Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    }
    return json.dumps(configuration, indent=2)


def _stand_in(sysctl: str) -> str:
    return f"sysctls/{sysctl.replace('/', '.')}"
