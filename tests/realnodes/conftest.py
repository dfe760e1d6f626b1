"""Fixtures: two control planes with one real node each, for the tests of this directory and of the whole flow.

Where a machine cannot run real nodes, these tests skip with one line that says what is missing; with
`LENDMESH_REQUIRE_ALL=1`, as CI has it, they fail with that line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.conftest import ControlPlanes, lack
from tests.controlplane.toolchain import CannotBuild
from tests.realnodes.lab import RealClusters, join_nodes
from tests.realnodes.programs import Programs, missing, programs


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build now what the collected tests will need: a test's time limit is not meant for a compiler."""
    wanted = any(item.get_closest_marker("realnodes") for item in session.items)
    if wanted and not session.config.option.collectonly and missing() is None:
        # What cannot be built is said by the fixture, in the test that wants it.
        with contextlib.suppress(CannotBuild):
            programs()


@pytest.fixture(scope="session")
def node_programs() -> Programs:
    """What a real node runs; ends the test where this machine cannot have it."""
    if lacking := missing():
        lack(lacking)
    try:
        return programs()
    except CannotBuild as reason:
        lack(str(reason))


@pytest.fixture(scope="session")
def real_clusters(node_programs: Programs, control_planes: ControlPlanes) -> Iterator[RealClusters]:
    """Clusters `a` and `b`, each a real control plane with one real node of 8 GPUs, for the whole session."""
    with control_planes.fresh("a", "b", kwok=False) as (a, b):
        yield RealClusters(*join_nodes(a, b, programs=node_programs))
