"""The images of the test pods, written as docker-archives without a registry or a builder.

Both hold one static program (go/images) and differ in the entrypoint only. They run as a numeric user that is not root,
so that they pass Pod Security "restricted" without a word in the pod about the user.

The format is what `docker save` writes and containerd imports: `manifest.json`, one configuration, one layer
(https://github.com/moby/docker-image-spec/blob/main/spec.md). Times are zero: the same program gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

PAUSE = "lendmesh.dev/test/pause:v1"
"""Does nothing, ends at SIGTERM: the sandbox of every pod, and fit for the lender's placeholder pods."""

WORKLOAD = "lendmesh.dev/test/workload:v1"
"""Prints its environment to its log, one NAME=VALUE a line, sorted, and stays until SIGTERM."""

USER = "65532:65532"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(path: Path, *, contents: Path) -> None:
    """Write both images into one docker-archive at `path`; `contents` is the static program they hold."""
    layer = _tar({"program": (contents.read_bytes(), 0o755)})
    files = {"layer.tar": (layer, 0o644)}
    manifest = []
    for name, word in ((PAUSE, "pause"), (WORKLOAD, "workload")):
        configuration = _configuration(word, layer)
        file_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
        files[file_name] = (configuration, 0o644)
        manifest.append({"Config": file_name, "RepoTags": [name], "Layers": ["layer.tar"]})
    files["manifest.json"] = (json.dumps(manifest).encode(), 0o644)
    path.write_bytes(_tar(files))


def _configuration(word: str, layer: bytes) -> bytes:
    machine = platform.machine()
    return json.dumps(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"User": USER, "WorkingDir": "/", "Entrypoint": ["/program", word], "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": f"tests/realnodes/images.py: {word}"}],
        }
    ).encode()


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of `files`: name → (bytes, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
