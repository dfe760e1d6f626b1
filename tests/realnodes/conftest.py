"""Fixtures: two control planes with one real node each, for the tests of this directory and of the whole flow.

Where a machine cannot run real nodes, these tests skip with one line that says what is missing; with
`LENDMESH_REQUIRE_ALL=1`, as CI has it, they fail with that line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.controlplane.toolchain import CannotBuild
from tests.realnodes import lab
from tests.realnodes.programs import missing


@pytest.fixture(scope="session")
def can_run_nodes() -> None:
    """Skips, or fails, where root, runc or the CNI plugins are missing."""
    if lacking := missing():
        _do_without(lacking)


@pytest.fixture(scope="session")
def real_clusters(can_run_nodes: None) -> Iterator[lab.RealClusters]:
    """Clusters `a` and `b`, each a real control plane with one real node of 8 GPUs, for the whole session."""
    try:
        lab.prepare()
    except CannotBuild as error:
        _do_without(str(error))
    with lab.real_clusters() as clusters:
        yield clusters


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("LENDMESH_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
