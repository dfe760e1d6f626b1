"""LendingPolicies as their objects have them: read once per version; a bad one is reported and stops no other."""

from collections.abc import Iterable

import structlog
from pydantic import ValidationError

from broker.wire.lending import LendingPolicySpec
from clusteragent.cache import uid_of
from clusteragent.camel import spec_of
from clusteragent.kube.interface import Obj

log = structlog.get_logger("agent")


class LendingPolicies:
    """Remembers what it has read."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[object, LendingPolicySpec | None]] = {}

    def of(self, objects: Iterable[Obj]) -> dict[str, LendingPolicySpec]:
        """Those that can be read, by name."""
        found = {}
        for obj in objects:
            known = self._read.get(uid_of(obj))
            if known is None or known[0] != obj.get("spec"):
                known = self._read[uid_of(obj)] = (obj.get("spec"), _read(obj))
            if known[1] is not None:
                found[str(obj["metadata"]["name"])] = known[1]
        return found


def _read(obj: Obj) -> LendingPolicySpec | None:
    try:
        return spec_of(LendingPolicySpec, obj)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        log.error("policy.unreadable", policy=obj["metadata"]["name"], where=where, error=first["msg"])
        return None
