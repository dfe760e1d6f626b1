"""The programs of a node, and what a machine lacks to run them.

Containerd, the DRA example driver and the contents of the images are built from the Go modules beside this file; runc
and the CNI plugins are the distribution's, because runc needs libseccomp and with it a C compiler.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.controlplane.toolchain import build

CONTAINERD_VERSION = "v2.2.1"
DRIVER_VERSION = "v0.2.1"
CONTENTS_VERSION = "v1"

_GO = Path(__file__).parent / "go"
_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI_HOMES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
_CNI_PLUGINS = ("ptp", "host-local", "loopback")


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Paths of everything a node runs, apart from the kubelet, which comes with its control plane's version."""

    containerd: Path
    shim: Path
    ctr: Path
    driver: Path
    contents: Path
    """The static program inside the test images."""
    runc: Path
    cni: Path
    """The directory of the CNI plugins."""


def missing() -> str | None:
    """What a real node needs and this machine lacks, in one line; None when nothing is missing."""
    lacks = [] if os.geteuid() == 0 else ["root"]
    lacks += [] if shutil.which("runc") else ["runc"]
    lacks += [] if _cni_home() else ["CNI plugins (ptp, host-local, loopback)"]
    lacks += [program for program in ("unshare", "setpriv", "mount") if not shutil.which(program)]
    lacks += [] if Path("/sys/fs/cgroup").is_dir() else ["cgroups at /sys/fs/cgroup"]
    if not lacks:
        return None
    return (
        f"real nodes need root, runc and CNI plugins; missing here: {', '.join(lacks)} "
        "(as root: apt-get install runc containernetworking-plugins)"
    )


def programs() -> Programs:
    """Build what is not yet in the cache: about four minutes on 2 cores the first time.

    :raises CannotBuild: a program cannot be built; the text is one line.
    """
    runc, cni = shutil.which("runc"), _cni_home()
    if runc is None or cni is None:
        raise RuntimeError(missing() or "runc or the CNI plugins went away")
    return Programs(
        containerd=_containerd("containerd"),
        shim=_containerd("containerd-shim-runc-v2"),
        ctr=_containerd("ctr"),
        driver=build(
            _GO / "exampledriver",
            "sigs.k8s.io/dra-example-driver/cmd/dra-example-kubeletplugin",
            "dra-example-kubeletplugin",
            version=DRIVER_VERSION,
            about="about 90 s",
        ),
        contents=build(_GO / "images", ".", "contents", version=CONTENTS_VERSION, about="a few seconds"),
        runc=Path(runc),
        cni=cni,
    )


def _containerd(command: str) -> Path:
    return build(
        _GO / "containerd",
        f"{_CONTAINERD}/cmd/{command}",
        command,
        version=CONTAINERD_VERSION,
        tags="no_btrfs no_zfs no_devmapper",
        ldflags=f"-X {_CONTAINERD}/version.Version={CONTAINERD_VERSION}",
        about="about a minute",
    )


def _cni_home() -> Path | None:
    return next((home for home in _CNI_HOMES if all((home / plugin).exists() for plugin in _CNI_PLUGINS)), None)
