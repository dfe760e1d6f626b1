"""What tests ask for: real clusters, a real PostgreSQL.

Programs are built before the first test runs, not inside one. Where something cannot be had, the tests that need it
skip with one line that says what is missing; with `LENDMESH_REQUIRE_ALL=1`, as in CI, they fail with that line.

Where everything is required, Hypothesis draws the same examples every time: a verdict on a commit depends on nothing
but the commit. Everywhere else it looks for new ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from tests.controlplane.cluster import CONTROL_PLANE, Cluster, keep_logs, start_clusters
from tests.controlplane.parts import DEFAULT_RELEASE, RELEASES, Parts
from tests.controlplane.postgres import NoPostgres, Postgres
from tests.controlplane.toolchain import CannotBuild
from tests.world import database_url, here  # noqa: F401  (fixtures)

REQUIRE_ALL = os.environ.get("LENDMESH_REQUIRE_ALL") == "1"
settings.register_profile("verdict", derandomize=True, print_blob=True)
if REQUIRE_ALL:
    settings.load_profile("verdict")

PROGRAMS = (*CONTROL_PLANE, "kubectl", "kwok", "helm")


def lack(reason: str) -> NoReturn:
    """End this test for want of something: skipped, or failed where everything is required."""
    if REQUIRE_ALL:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class ControlPlanes:
    """Starts clusters for tests, on the Kubernetes named by `--k8s-version`, and ends them.

    A fresh cluster is ready in about 4 s, which is less than the deletion of an empty namespace takes: so clusters are
    not cleaned and used again, but either fresh, or shared by tests that keep to names of their own.
    """

    def __init__(self, default: str) -> None:
        self.version = default
        self._parts: dict[str, Parts | str] = {}
        self._shared: dict[str, Cluster] = {}
        self._living: list[Cluster] = []

    def prepare(self, version: str) -> None:
        """Have everything of a release built, or know why not."""
        if version in self._parts:
            return
        parts = Parts(version)
        try:
            parts.prepare(*PROGRAMS)
        except CannotBuild as reason:
            self._parts[version] = str(reason)
        else:
            self._parts[version] = parts

    def parts(self, version: str | None = None) -> Parts:
        """The programs of a release; ends the test where they cannot be had."""
        version = version or self.version
        self.prepare(version)
        parts = self._parts[version]
        if isinstance(parts, str):
            lack(parts)
        return parts

    @contextmanager
    def fresh(self, *names: str, version: str | None = None, **how: Any) -> Iterator[list[Cluster]]:
        """New clusters, started at the same time, gone at the end. `how` as of `Cluster.start`."""
        clusters = start_clusters(names, parts=self.parts(version), **how)
        self._living += clusters
        try:
            yield clusters
        except Exception as error:
            if not isinstance(error, pytest.skip.Exception):
                error.add_note(f"logs of all parts: {self.keep_logs()}")
            raise
        finally:
            for cluster in clusters:
                self._living.remove(cluster)
                cluster.stop()

    def shared(self, *names: str) -> list[Cluster]:
        """Clusters that live as long as the run, as other tests have left them."""
        if missing := [name for name in names if name not in self._shared]:
            clusters = start_clusters(missing, parts=self.parts())
            self._living += clusters
            self._shared.update(zip(missing, clusters, strict=True))
        return [self._shared[name] for name in names]

    def keep_logs(self) -> Path | None:
        """Copy the logs of all living clusters to a directory that stays."""
        if not self._living:
            return None
        where = Path(tempfile.mkdtemp(prefix="lendmesh-logs-"))
        keep_logs(self._living, where)
        return where

    def stop(self) -> None:
        for cluster in self._living:
            cluster.stop()
        self._living.clear()
        self._shared.clear()


_control_planes = pytest.StashKey[ControlPlanes]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--k8s-version",
        choices=tuple(RELEASES),
        default=DEFAULT_RELEASE,
        help="the Kubernetes that control planes run (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_control_planes] = ControlPlanes(config.getoption("--k8s-version"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build now what the collected tests will need: a test's time limit is not meant for a compiler."""
    if session.config.option.collectonly:
        return
    planes = session.config.stash[_control_planes]
    if any(_needs_clusters(item) for item in session.items):
        planes.prepare(planes.version)
        if REQUIRE_ALL:
            for version in RELEASES:
                planes.prepare(version)


def _needs_clusters(item: pytest.Item) -> bool:
    asked = {"control_planes", "real_clusters"} & set(getattr(item, "fixturenames", ()))
    return bool(asked) or item.get_closest_marker("controlplane") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when != "teardown" and _needs_clusters(item):
        where = item.config.stash[_control_planes].keep_logs()
        if where is not None:
            report.sections.append(("clusters", f"logs of all parts: {where}"))
    return report


@pytest.fixture(scope="session")
def control_planes(request: pytest.FixtureRequest) -> Iterator[ControlPlanes]:
    """Real control planes: `fresh(...)` as a context manager, or `shared(...)` for the whole run."""
    planes = request.config.stash[_control_planes]
    planes.parts()
    yield planes
    planes.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server for the whole run."""
    try:
        server = Postgres.start()
    except NoPostgres as reason:
        lack(str(reason))
    with server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, empty database."""
    with postgres.database() as url:
        yield url
