"""Charts rendered by helm, and what can be read from what came out: pods, rights, settings, schemas."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
CHARTS = Path(__file__).parent.parent / "deploy" / "charts"
NAMESPACE = "lendmesh-system"
AGENT = {"cluster": {"name": "b"}, "broker": {"url": "https://broker.example:8443"}}
POSTGRES = {
    "replicas": 3,
    "database": {"type": "postgresql", "existingSecret": "database"},
    "leaseKeys": {"existingSecret": "lease-keys"},
    "tls": {"mode": "secret", "existingSecret": "broker-tls"},
}


class Refused(ValueError):
    """Helm refuses the values or the chart; the text is helm's."""


class Helm:
    """``helm`` as a program, on charts of this repository."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = [*command]

    def lint(self, chart: str, values: Mapping[str, Any]) -> str:
        return self._run(["lint", "--strict", str(CHARTS / chart), "--values", "-"], values)

    def render(self, chart: str, values: Mapping[str, Any]) -> list[Object]:
        """The manifests of a release named ``lendmesh``."""
        where = [str(CHARTS / chart), "--namespace", NAMESPACE, "--values", "-"]
        told = self._run(["template", "lendmesh", *where], values)
        return [document for document in yaml.safe_load_all(told) if document]

    def _run(self, words: Sequence[str], values: Mapping[str, Any]) -> str:
        done = subprocess.run(
            [*self._command, *words], input=json.dumps(values), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Refused(done.stderr + done.stdout)
        return done.stdout


def of_kind(manifests: Sequence[Object], *kinds: str) -> list[Object]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pod_specs(manifests: Sequence[Object]) -> Iterator[Object]:
    for workload in of_kind(manifests, "Deployment", "StatefulSet", "Job", "DaemonSet"):
        yield workload["spec"]["template"]["spec"]


def against_restricted(pod: Object) -> list[str]:
    """What in a pod's spec is against the Pod Security Standard ``restricted`` (Kubernetes 1.36)."""
    found = [f"{word} is set" for word in ("hostNetwork", "hostPID", "hostIPC") if pod.get(word)]
    common = pod.get("securityContext", {})
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']} is a {kind}" for kind in set(volume) - {"name"} - allowed]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = {**common, **container.get("securityContext", {})}
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            found.append("may run as root")
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("has no seccomp profile")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("may gain privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            found.append("keeps capabilities")
        if own.get("privileged") or any("hostPort" in port for port in container.get("ports", [])):
            found.append("reaches into the host")
    return found


def environment(pod: Object) -> dict[str, str]:
    """What a pod's first container finds in its environment; what comes from elsewhere is ``from-elsewhere``."""
    return {entry["name"]: entry.get("value", "from-elsewhere") for entry in pod["containers"][0].get("env", [])}


class Rights:
    """What the agent's account may do, by its roles."""

    def __init__(self, manifests: Sequence[Object]) -> None:
        roles = {
            (one["kind"], one["metadata"]["name"]): one["rules"] for one in of_kind(manifests, "ClusterRole", "Role")
        }
        self.rules: list[tuple[str | None, Object]] = []
        """Each with the namespace it holds in; None: everywhere."""
        for binding in of_kind(manifests, "ClusterRoleBinding", "RoleBinding"):
            reference = binding["roleRef"]
            namespace = binding["metadata"].get("namespace")
            self.rules += [(namespace, rule) for rule in roles[reference["kind"], reference["name"]]]

    def allow(self, verb: str, group: str, resource: str, *, name: str | None, namespace: str | None) -> bool:
        return any(
            verb in rule["verbs"]
            and group in rule["apiGroups"]
            and resource in rule["resources"]
            and ("resourceNames" not in rule or name in rule["resourceNames"])
            and where in (None, namespace)
            for where, rule in self.rules
        )


def schema_of(manifests: Sequence[Object], kind: str) -> Object:
    """The schema of one of our kinds."""
    (found,) = [one for one in of_kind(manifests, "CustomResourceDefinition") if one["spec"]["names"]["kind"] == kind]
    (version,) = found["spec"]["versions"]
    schema: Object = version["schema"]["openAPIV3Schema"]
    return schema


def camel(word: str) -> str:
    first, *rest = word.split("_")
    return first + "".join(part.capitalize() for part in rest)
