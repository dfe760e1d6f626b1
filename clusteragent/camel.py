"""Objects say ``keepBack``, messages say ``keep_back``: the spec of an object of ours, read as a wire model."""

import re
from typing import Any, TypeVar

from pydantic import BaseModel

from clusteragent.kube.interface import Obj

Model = TypeVar("Model", bound=BaseModel)
_OPAQUE = frozenset({"labels", "namespaceLabels", "podLabels"})
"""Their keys are the user's own words."""


def spec_of(model: type[Model], obj: Obj) -> Model:
    """The spec as ``model``; ``ValidationError`` when it isn't one."""
    return model.model_validate(snake(obj.get("spec", {})))


def snake(value: Any) -> Any:
    """A JSON value with the keys of messages instead of those of objects."""
    if isinstance(value, dict):
        return {
            re.sub(r"(?<=[a-z0-9])([A-Z])", lambda letter: "_" + letter[1].lower(), key): (
                inner if key in _OPAQUE else snake(inner)
            )
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return tuple(snake(inner) for inner in value)
    return value
