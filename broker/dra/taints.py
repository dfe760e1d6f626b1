"""Taints and tolerations of devices (KEP-5055): does a taint keep a request away from a device?"""

from __future__ import annotations

from collections.abc import Iterable

from broker.dra.model import Taint, Toleration

_BLOCKING = ("NoSchedule", "NoExecute")


def untolerated(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> Taint | None:
    """The first taint that forbids the allocation; taints with other effects never do."""
    known = tuple(tolerations)
    for taint in taints:
        if taint.effect in _BLOCKING and not any(tolerates(toleration, taint) for toleration in known):
            return taint
    return None


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """No key tolerates every key, no effect every effect; an operator that is not known tolerates nothing."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator in ("", "Equal"):
        return toleration.value == taint.value
    return toleration.operator == "Exists"
