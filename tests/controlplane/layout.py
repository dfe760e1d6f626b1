"""What one control plane looks like on disk and on the command line: keys, kubeconfigs, ports, the flags of each part.

The flags are those that let the stock programs run side by side, on loopback and without root; behaviour is left as
Kubernetes has it, admission (ServiceAccount, PodSecurity, ValidatingAdmissionPolicy) and feature gates included.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.controlplane.certs import Authority, Pair, signing_pair

LOOPBACK = "127.0.0.1"
STAGES = Path(__file__).with_name("stages.yaml")

# Controllers of what these clusters have not: volumes, certificate requests, autoscaling, service networking. Each one
# costs several calls at the controller manager's start, which is bound by its client's rate: with them it takes 5 s,
# without 2 s. Everything that moves pods, jobs, claims, nodes, quotas, accounts and namespaces is there.
_NOTHING_TO_CONTROL = (
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "cronjob-controller",
    "endpoints-controller",
    "endpointslice-mirroring-controller",
    "ephemeral-volume-controller",
    "horizontal-pod-autoscaler-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "replicationcontroller-controller",
    "service-cidr-controller",
    "ttl-controller",
    "volumeattributesclass-protection-controller",
)

# Below the range Linux takes ports of outgoing connections from, so that nobody's client sits on a port just chosen.
_PORTS = range(20000, 32000)
_handed_out: set[int] = set()
_handing_out = threading.Lock()


def free_port() -> int:
    """A loopback port nobody listens on, and that this process has not handed out before."""
    with _handing_out:
        for port in random.sample(_PORTS, len(_PORTS)):
            if port in _handed_out:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    continue
            _handed_out.add(port)
            return port
    raise OSError(f"no free port on {LOOPBACK} between {_PORTS.start} and {_PORTS.stop}")


@dataclass(frozen=True)
class Flags:
    """Flags added to ours, per part, for tests that want a control plane of another kind."""

    etcd: Sequence[str] = ()
    apiserver: Sequence[str] = ()
    controller_manager: Sequence[str] = ()
    scheduler: Sequence[str] = ()


class Layout:
    """The directory of one control plane: written once, read by its parts."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.authority = Authority(name)
        self.etcd_port, self.etcd_peer_port, self.port = free_port(), free_port(), free_port()
        self.controller_manager_port, self.scheduler_port = free_port(), free_port()
        for part in ("pki", "logs", "kubeconfigs"):
            (directory / part).mkdir()
        self._write_keys()
        self.admin = self.kubeconfig("admin", groups=["system:masters"])

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    def log(self, part: str) -> Path:
        return self.directory / "logs" / f"{part}.log"

    def pki(self, file: str) -> Path:
        return self.directory / "pki" / file

    def kubeconfig(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a client certificate for any user and groups: nodes, components, people."""
        pair = self.authority.client(user=user, groups=groups)
        return self.write_kubeconfig(
            user, {"client-certificate-data": _b64(pair.certificate), "client-key-data": _b64(pair.key)}
        )

    def write_kubeconfig(self, name: str, user: dict[str, str], *, namespace: str = "default") -> Path:
        """A kubeconfig with the given credential (the `user` of a kubeconfig)."""
        cluster = {"server": self.server, "certificate-authority-data": _b64(self.authority.pem)}
        context = {"cluster": self.name, "user": name, "namespace": namespace}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": self.name, "context": context}],
            "current-context": self.name,
        }
        path = self.directory / "kubeconfigs" / f"{name.replace(':', '-').replace('/', '-')}.yaml"
        path.touch(mode=0o600)
        path.write_text(json.dumps(body, indent=2) + "\n")
        return path

    def tls(self, *, user: str | None = None, groups: Sequence[str] = ()) -> ssl.SSLContext:
        """A context that trusts this cluster alone and, with `user`, proves to be that user."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        if user is not None:
            pair = self.authority.client(user=user, groups=groups)
            self._write_pair(f"client-{user}", pair)
            context.load_cert_chain(self.pki(f"client-{user}.crt"), self.pki(f"client-{user}.key"))
        return context

    def flags(self, part: str, added: Flags) -> list[str]:
        """The command line of a part."""
        match part:
            case "etcd":
                return [*self._etcd(), *added.etcd]
            case "kube-apiserver":
                return [*self._apiserver(), *added.apiserver]
            case "kube-controller-manager":
                return [*self._controller_manager(), *added.controller_manager]
            case "kube-scheduler":
                return [*self._scheduler(), *added.scheduler]
            case "kwok":
                return self._kwok()
        raise ValueError(f"no such part: {part}")

    def _etcd(self) -> list[str]:
        client, peer = f"http://{LOOPBACK}:{self.etcd_port}", f"http://{LOOPBACK}:{self.etcd_peer_port}"
        return [
            f"--data-dir={self.directory / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ]

    def _apiserver(self) -> list[str]:
        return [
            f"--etcd-servers=http://{LOOPBACK}:{self.etcd_port}",
            f"--secure-port={self.port}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--tls-cert-file={self.pki('serving.crt')}",
            f"--tls-private-key-file={self.pki('serving.key')}",
            f"--client-ca-file={self.pki('ca.crt')}",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.pki('tokens.crt')}",
            f"--service-account-signing-key-file={self.pki('tokens.key')}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
            "--runtime-config=resource.k8s.io/v1beta2=true",
            # How it reaches kubelets (real ones, and a virtual node's): at their own address, as itself.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={self.pki('kubelet-client.crt')}",
            f"--kubelet-client-key={self.pki('kubelet-client.key')}",
        ]

    def _controller_manager(self) -> list[str]:
        kubeconfig = self.kubeconfig("system:kube-controller-manager")
        return [
            *self._component(kubeconfig, self.controller_manager_port),
            f"--root-ca-file={self.pki('ca.crt')}",
            f"--service-account-private-key-file={self.pki('tokens.key')}",
            "--use-service-account-credentials",
            f"--controllers={','.join(['*', *(f'-{name}' for name in _NOTHING_TO_CONTROL)])}",
            # The taint of a node that became Ready is lifted at the next look: after at most 1 s, not 5.
            "--node-monitor-period=1s",
            # Otherwise it makes one in /usr/libexec, where it may.
            f"--flex-volume-plugin-dir={self.directory / 'volume-plugins'}",
        ]

    def _scheduler(self) -> list[str]:
        return [*self._component(self.kubeconfig("system:kube-scheduler"), self.scheduler_port)]

    def _kwok(self) -> list[str]:
        return [
            f"--kubeconfig={self.admin}",
            f"--config={STAGES}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-port=0",
            "--cidr=10.0.0.1/16",
            f"--node-ip={LOOPBACK}",
        ]

    def _component(self, kubeconfig: Path, port: int) -> list[str]:
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--tls-cert-file={self.pki('serving.crt')}",
            f"--tls-private-key-file={self.pki('serving.key')}",
            "--leader-elect=false",
        ]

    def _write_keys(self) -> None:
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        self._write_pair("serving", self.authority.serving(names=names, addresses=[LOOPBACK, "10.96.0.1"]))
        self._write_pair("tokens", signing_pair())
        kubelet_client = self.authority.client(user="kube-apiserver-kubelet-client", groups=["system:masters"])
        self._write_pair("kubelet-client", kubelet_client)
        self.pki("ca.crt").write_bytes(self.authority.pem)

    def _write_pair(self, name: str, pair: Pair) -> None:
        self.pki(f"{name}.crt").write_bytes(pair.certificate)
        self.pki(f"{name}.key").touch(mode=0o600)
        self.pki(f"{name}.key").write_bytes(pair.key)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
