"""What the verbs share: the client of the chosen broker, a cluster by its kubeconfig, files and stdin."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lendmesh.cli import MISUSED, Failed
from lendmesh.client import Client
from lendmesh.context import find

if TYPE_CHECKING:
    from clusteragent.kube.real import RealKube

Model = TypeVar("Model", bound=BaseModel)
MAX_FILE = 1 << 20
"""Bytes. What the broker would refuse is not read either."""


def client(arguments: argparse.Namespace) -> Client:
    """The client of the broker the user means."""
    return Client(find(url=arguments.url, token_file=arguments.token_file, ca=arguments.ca))


def read_text(path: str) -> str:
    """A file's text, or stdin's for ``-``; ``Failed`` says what is wrong with it."""
    try:
        text = sys.stdin.read(MAX_FILE + 1) if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{path} cannot be read: {error}", code=MISUSED) from error
    if len(text) > MAX_FILE:
        raise Failed(f"{path} is larger than 1 MiB", code=MISUSED)
    return text


def read_mapping(path: str) -> dict[str, Any]:
    """A mapping, YAML or JSON, from a file; of an object of ours (``kind: BurstPolicy``) its spec as a message."""
    try:
        loaded = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise Failed(f"{path} is neither YAML nor JSON: {error}", code=MISUSED) from error
    if not isinstance(loaded, dict):
        raise Failed(f"{path} must hold a mapping, such as `cluster: a`", code=MISUSED)
    if str(loaded.get("apiVersion", "")).startswith("lendmesh.dev/"):
        from clusteragent.camel import snake

        spec: dict[str, Any] = snake(loaded.get("spec") or {})
        return spec
    return loaded


async def cluster(kubeconfig: str | None) -> "RealKube":
    """The cluster a kubeconfig reaches (None: as kubectl finds it); ``Failed`` says what is wrong with it."""
    from clusteragent.kube.real import NoWayIn, RealKube

    _there_is(kubeconfig)
    try:
        return await RealKube.from_kubeconfig(kubeconfig)
    except NoWayIn as trouble:
        raise Failed(str(trouble), code=MISUSED) from trouble


def _there_is(kubeconfig: str | None) -> None:
    found = [kubeconfig] if kubeconfig else (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    if not any(Path(path).expanduser().exists() for path in found):
        raise Failed(f"there is no kubeconfig {' or '.join(found)}; name one with --kubeconfig", code=MISUSED)


def checked(model: type[Model], value: dict[str, Any], *, options: Mapping[str, str] | None = None) -> Model:
    """``value`` as ``model``; ``Failed`` lists every field that doesn't fit, by its option where it has one."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            where = ".".join(str(part) for part in item["loc"])
            lines.append(f"  {(options or {}).get(where, where) or 'it'}: {_plainly(item['msg'])}")
        raise Failed("this can't be asked:\n" + "\n".join(lines), code=MISUSED) from error


def _plainly(message: str) -> str:
    """Pydantic's sentence for people."""
    plain = {"Field required": "is missing", "Extra inputs are not permitted": "there is no such field"}
    return plain.get(message, message.removeprefix("Value error, ").replace("Input should", "should"))
