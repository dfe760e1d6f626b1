"""Pods and claims for real nodes: those of `tests/controlplane/fixtures.py`, with an image that is really there."""

from __future__ import annotations

from collections.abc import Sequence

from tests.controlplane import fixtures
from tests.realnodes import images
from tests.realnodes.node import DRIVER

Object = fixtures.Object


def claim(name: str, *, count: int = 1, selectors: Sequence[str] = ()) -> Object:
    """A ResourceClaim for `count` of the example driver's GPUs, narrowed by CEL."""
    return fixtures.claim(name, count=count, device_class=DRIVER, selectors=selectors)


def workload(name: str, *, claims: Sequence[str] = ()) -> Object:
    """A pod that prints its environment and stays, using existing claims.

    It says nothing about its user: the image's numeric user has to satisfy `runAsNonRoot`, as it will have to in the
    placeholder pods of a lender.
    """
    pod = fixtures.pod(name, claims=claims)
    spec = pod["spec"]
    spec["automountServiceAccountToken"] = False
    del spec["securityContext"]["runAsUser"]
    spec["containers"][0] |= {"image": images.WORKLOAD, "imagePullPolicy": "Never"}
    return pod
