"""The programs a cluster is made of: where each comes from, and the command that runs it.

Prebuilt ones in the directory named by `KUBEBUILDER_ASSETS` are used where they are of the wanted Kubernetes version
(etcd, kwok and helm: where they are there at all). What is missing there is built by `toolchain.build`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.controlplane import toolchain

MODULES = Path(__file__).parent / "go"

KUBERNETES_PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet")


@dataclass(frozen=True)
class Release:
    """A Kubernetes release we build: its minor version, the exact one, and the go.mod that pins it."""

    minor: str
    version: str
    modfile: str

    @property
    def ldflags(self) -> str:
        """What makes the programs say their version; without it the server calls itself v0.0.0."""
        package = "k8s.io/component-base/version"
        major, minor = self.minor.split(".")
        stamps = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor}
        return " ".join(f"-X {package}.{name}={value}" for name, value in stamps.items())


RELEASES = {
    "1.36": Release(minor="1.36", version="1.36.3", modfile="go.mod"),
    "1.37": Release(minor="1.37", version="1.37.2", modfile="1.37.mod"),
}
DEFAULT_RELEASE = "1.36"


@dataclass(frozen=True)
class Tool:
    """A program that is a command of a module of its own."""

    package: str
    version: str
    ldflags: str


TOOLS = {
    "kwok": Tool(
        package="sigs.k8s.io/kwok/cmd/kwok",
        version="0.8.0",
        ldflags="",
    ),
    "helm": Tool(
        package="helm.sh/helm/v4/cmd/helm",
        version="4.3.1",
        ldflags="-X helm.sh/helm/v4/internal/version.version=v4.3.1",
    ),
}

# How long a first build takes.
ABOUT = {
    "kubernetes": "about 5 minutes on 2 cores",
    "kwok": "about 1 minute on 2 cores",
    "helm": "about 2 minutes on 2 cores",
}

Command = tuple[str, ...]


class Parts:
    """The commands of one Kubernetes release. Each part is looked for, or built, when it is first asked for."""

    def __init__(self, minor: str = DEFAULT_RELEASE, *, tell: Callable[[str], None] = toolchain.say) -> None:
        if minor not in RELEASES:
            raise ValueError(f"Kubernetes {minor} is not one of {', '.join(RELEASES)}")
        self.release = RELEASES[minor]
        self._tell = tell
        self._known: dict[str, Command] = {}

    def command(self, part: str) -> Command:
        """The words that start a part: etcd, a Kubernetes program, kwok or helm.

        :raises toolchain.CannotBuild: it is not given and cannot be built; the text is one line.
        """
        if part not in self._known:
            self._known[part] = self._given(part) or self._built(part)
        return self._known[part]

    def prepare(self, *parts: str) -> None:
        """Find or build several parts now, so that nothing is built in the middle of a test."""
        for part in parts:
            self.command(part)

    def _given(self, part: str) -> Command | None:
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if not assets or not (program := Path(assets) / part).is_file():
            return None
        if part in KUBERNETES_PARTS:
            flags = ["version", "--client"] if part == "kubectl" else ["--version"]
            told = subprocess.run([program, *flags], capture_output=True, text=True, check=False).stdout
            found = re.search(r"v(\d+\.\d+)\.", told)
            if found is None or found[1] != self.release.minor:
                self._tell(f"not using {program}: it is not Kubernetes {self.release.minor}")
                return None
        return (str(program),)

    def is_built(self, part: str) -> bool:
        """Whether a part is at hand without building anything."""
        return self._given(part) is not None or toolchain.built_path(**self._recipe(part)).exists()

    def _built(self, part: str) -> Command:
        recipe = self._recipe(part)
        path = toolchain.build(**recipe, about=ABOUT[recipe["output_name"]], tell=self._tell)
        return (str(path),) if part in TOOLS else (str(path), part)

    def _recipe(self, part: str) -> dict[str, Any]:
        """What `toolchain.build` and `built_path` need to know of a part."""
        if part in TOOLS:
            tool = TOOLS[part]
            return {
                "module_dir": MODULES / part,
                "package": tool.package,
                "output_name": part,
                "version": tool.version,
                "ldflags": tool.ldflags,
            }
        if part != "etcd" and part not in KUBERNETES_PARTS:
            raise ValueError(f"no such part: {part}")
        return {
            "module_dir": MODULES / "kubernetes",
            "package": ".",
            "output_name": "kubernetes",
            "version": self.release.version,
            "ldflags": self.release.ldflags,
            "modfile": self.release.modfile,
        }
