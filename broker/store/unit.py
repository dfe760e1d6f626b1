"""One transaction's view of the database, and the words every noun's statements are said with.

A ``Unit`` is handed to a job and dies with it. With savepoints, what a job changes is undone alone when it fails: its
first change sets one (jobs that only look pay nothing). Without, whoever runs the jobs undoes the transaction. Log
entries are numbered here and written once per commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ClauseElement, Connection, CursorResult, Executable, func, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from broker.domain.errors import AlreadyThere, DeviceTaken
from broker.domain.lease import Lease
from broker.domain.log import Entry
from broker.domain.request import Request
from broker.store import tables
from broker.store.answers import Answers
from broker.store.clusters import Clusters
from broker.store.leases import Leases
from broker.store.log import Log, entry_row
from broker.store.offers import Offers
from broker.store.policies import Policies
from broker.store.requests import Requests
from broker.store.tokens import Tokens

Row = Lease | Request
"""What those who watch are told of."""

_LAST = select(func.coalesce(func.max(tables.events.c.revision), 0))


class Unit:
    """What a job may read and change."""

    def __init__(self, connection: Connection, *, savepoints: bool = False) -> None:
        self._connection = connection
        self._last: int | None = None
        self._savepoints = savepoints
        self._later: dict[Executable, list[Mapping[str, Any]]] = {}
        """What is put off: rows to add, one statement for all of a kind."""
        self._attempts = 0
        self.misfit: Exception | None = None
        """The refusal of something that was put off; whose that was, only a run with savepoints tells."""
        self.changed = False
        """The job that runs, or ran last, changed something or tried to."""
        self.entries: list[Entry] = []
        """Of this transaction, in order; written just before the commit."""
        self.saved: list[Row] = []
        """What this transaction wrote, as it is from then on; of what was written twice the last counts."""
        self.answers = Answers(self)
        self.clusters = Clusters(self)
        self.leases = Leases(self)
        self.log = Log(self)
        self.offers = Offers(self)
        self.policies = Policies(self)
        self.requests = Requests(self)
        self.tokens = Tokens(self)

    # --- statements ---------------------------------------------------------------------------------------------

    def ask(
        self, statement: Executable, values: Mapping[str, Any] | None = None, *, aside: bool = False
    ) -> CursorResult[*tuple[Any, ...]]:
        """Look; ``aside``: at no table of which rows are put off."""
        if not aside:
            self._catch_up()
        return self._connection.execute(statement, values or {})

    def change_plainly(self, statement: ClauseElement, rows: Sequence[Mapping[str, Any]]) -> None:
        """As ``change``, for thousands of rows of what the driver takes as it is: a time or a JSON it may not."""
        if not rows:
            return
        compiled = statement.compile(dialect=self._connection.dialect)
        names = getattr(compiled, "positiontup", None)
        values: Any = list(rows) if names is None else [tuple(map(row.__getitem__, names)) for row in rows]
        self._changing()
        try:
            self._connection.exec_driver_sql(str(compiled), values)
        except IntegrityError as error:
            raise _refusal(error) from error

    def put_off(self, statement: Executable, row: Mapping[str, Any]) -> None:
        """Add a row, at the latest before the commit: many in one statement cost little more than one.

        Whatever looks or changes meanwhile finds it added, but for a look ``aside``. Where a job must be undone alone,
        nothing is put off.
        """
        if self._savepoints or self._attempts:
            self.change(statement, row)
            return
        self.changed = True
        self._later.setdefault(statement, []).append(row)

    def _catch_up(self) -> None:
        later, self._later = self._later, {}
        for statement, rows in later.items():
            try:
                self._connection.execute(statement, rows)
            except Exception as error:
                refused = _refusal(error) if isinstance(error, IntegrityError) else error
                self.misfit = None if self._connection.invalidated else refused
                raise refused from error

    def change(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Change; a violated constraint becomes the refusal it stands for."""
        self._changing()
        try:
            return self._connection.execute(statement, values or {})
        except IntegrityError as error:
            raise _refusal(error) from error

    def _changing(self) -> None:
        if self._savepoints and not self.changed:
            self._connection.exec_driver_sql("SAVEPOINT job")
        self.changed = True
        self._catch_up()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A part of a job that may fail alone: what it changed is undone, and the exception goes on."""
        self._changing()
        mark = self._mark()
        self._connection.exec_driver_sql("SAVEPOINT attempt")
        self._attempts += 1
        try:
            yield
        except BaseException:
            self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT attempt")
            self._connection.exec_driver_sql("RELEASE SAVEPOINT attempt")
            self._undo(mark)
            raise
        finally:
            self._attempts -= 1
        self._connection.exec_driver_sql("RELEASE SAVEPOINT attempt")

    # --- the log's numbers --------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Of the last entry, this transaction's own included."""
        if self._last is None:
            self._last = int(self._connection.execute(_LAST).scalar_one())
        return self._last

    def next_revision(self) -> int:
        """One more: no gaps, because whoever writes has the database to itself until the commit."""
        self._last = self.revision + 1
        return self._last

    # --- for the writer -----------------------------------------------------------------------------------------

    @contextmanager
    def job(self) -> Iterator[None]:
        """One job of a batch; with savepoints it is undone alone when it fails."""
        self.changed = False
        mark = self._mark()
        try:
            yield
        except BaseException:
            if self.changed and self._savepoints:
                self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT job")
                self._connection.exec_driver_sql("RELEASE SAVEPOINT job")
            self._undo(mark)
            raise
        if self.changed and self._savepoints:
            self._connection.exec_driver_sql("RELEASE SAVEPOINT job")

    def _mark(self) -> tuple[int, int, int, int | None]:
        return len(self.entries), len(self.saved), len(self.answers.new), self._last

    def _undo(self, mark: tuple[int, int, int, int | None]) -> None:
        del self.entries[mark[0] :]
        del self.saved[mark[1] :]
        del self.answers.new[mark[2] :]
        self._last = mark[3]
        self.clusters.look_again()

    def spoilt(self, error: Exception) -> bool:
        """Whether this failure of a job takes the whole batch along.

        Where the database itself said no to a job that had set no savepoint, PostgreSQL turns the coming commit into a
        rollback and doesn't call that an error: nobody of the batch may be told that theirs is durable.
        """
        return isinstance(error, DBAPIError) and not self.changed and self.misfit is None

    def flush(self) -> None:
        """Write what was put off, and the log entries of the whole batch in one statement."""
        self._catch_up()
        if self.misfit is not None:  # some job took it for a refusal of its own, and went on
            raise self.misfit
        if self.entries:
            self._connection.execute(_ENTRY, [entry_row(entry) for entry in self.entries])


_ENTRY = insert(tables.events)


def _refusal(error: IntegrityError) -> Exception:
    if violated(error) == tables.LIVE_DEVICE:
        return DeviceTaken()
    if "unique" in str(error.orig).lower():
        return AlreadyThere("The name or the key of what you are making is taken.")
    return error


def violated(error: IntegrityError) -> str:
    """The name of the constraint that said no.

    PostgreSQL names it. SQLite names the columns instead («UNIQUE constraint failed: lease_devices.ref»), so the index
    over exactly these is looked up.
    """
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        return str(diagnosis.constraint_name or "")
    text = str(error.orig)
    columns = {column.strip() for column in text.rpartition(":")[2].split(",")}
    for table in tables.metadata.tables.values():
        for index in table.indexes:
            if {f"{table.name}.{column.name}" for column in index.columns} == columns and index.unique:
                return str(index.name)
    return text
