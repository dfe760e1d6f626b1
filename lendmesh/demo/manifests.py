"""What of the agent's chart the demo needs in a cluster, read from the chart itself: its kinds, classes and one role.

``chart`` beside this file is a link to the chart's templates, so that there is one place where these objects are
written; a wheel holds copies of the files behind it. They are YAML but for whole lines of templating (labels,
conditions), which are left out here.
"""

from importlib.resources import files
from typing import Any

import yaml

Obj = dict[str, Any]
BORROWER_ROLE = "lendmesh-borrower"


def kinds() -> list[Obj]:
    """The four CustomResourceDefinitions."""
    return [obj for obj in _objects() if obj["kind"] == "CustomResourceDefinition"]


def device_classes() -> list[Obj]:
    """``lendmesh-held`` and ``lendmesh-remote``."""
    return [obj for obj in _objects() if obj["kind"] == "DeviceClass"]


def borrower_role() -> Obj:
    """What a borrower may do in the namespace of its lease."""
    return next(obj for obj in _objects() if obj["kind"] == "ClusterRole" and obj["metadata"]["name"] == BORROWER_ROLE)


def _objects() -> list[Obj]:
    wanted = ("crd-", "deviceclasses.", "rbac.")
    found: list[Obj] = []
    for file in sorted((files("lendmesh.demo") / "chart").iterdir(), key=lambda file: file.name):
        if file.name.startswith(wanted):
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "{{" not in line]
            found += [obj for obj in yaml.safe_load_all("\n".join(lines)) if obj]
    return found
