"""What the verbs share: the client of the chosen broker, files and stdin, following a change until it is done."""

import argparse
import sys
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lendmesh.cli import MISUSED, Failed
from lendmesh.client import Client
from lendmesh.context import find

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
    """A YAML or JSON mapping from a file."""
    try:
        loaded = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise Failed(f"{path} is neither YAML nor JSON: {error}", code=MISUSED) from error
    if not isinstance(loaded, dict):
        raise Failed(f"{path} must hold a mapping, such as `cluster: a`", code=MISUSED)
    return loaded


def checked(model: type[Model], value: dict[str, Any]) -> Model:
    """``value`` as ``model``; ``Failed`` lists every field that doesn't fit."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors(include_url=False)
        ]
        raise Failed("this can't be asked:\n" + "\n".join(lines), code=MISUSED) from error
