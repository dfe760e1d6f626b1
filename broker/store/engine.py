"""The store: one writer that commits in groups, and a few readers.

``await store.write(job)`` queues ``job`` for the one writer thread, which runs all jobs that are waiting inside one
transaction and commits them together; the future resolves only after that commit, so whatever was answered is on disk.
A job that raises is undone alone; for that the others may be run a second time, so a job has no effect but on its unit.
``await store.read(job)`` runs on a connection that cannot write. Both take a
function of a ``Unit`` and return what it returns; a job must not await and may be the only one who sees its unit.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from broker.domain.errors import Overloaded, ShuttingDown
from broker.domain.log import Entry
from broker.store.database import Database, database
from broker.store.unit import Row, Unit

T = TypeVar("T")
Job = Callable[[Unit], T]
Listener = Callable[[list[Entry], Sequence[Row]], None]

BATCH = 128
"""Most jobs in one commit: above it nothing is gained, and the first would wait long for the last."""
WAITING = 10_000
"""Most jobs that may wait; beyond, ``Overloaded`` is the honest answer."""
READERS = 4


class _Task(Generic[T]):
    """One job on its way to the writer and its answer on the way back."""

    __slots__ = ("error", "future", "job", "loop", "result")

    def __init__(self, job: Job[T], loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.result: T | None = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """On the loop: whoever awaits goes on, unless they have gone away."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # set by the writer before it settles


class Store:
    """Open it with ``Store.open``; close it to let the last writes finish."""

    def __init__(self, base: Database, *, readers: int = READERS, batch: int = BATCH, waiting: int = WAITING) -> None:
        self._base = base
        self._batch = batch
        self._queue: queue.Queue[_Task[Any] | None] = queue.Queue()
        self._waiting = waiting
        self._closing = False
        self._engine = base.writer()
        self._reader = base.reader(readers)
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="store-reader")
        self._listeners: list[Listener] = []
        self._opened: asyncio.Future[bool] | None = None
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self.first = True
        """No other broker was using the database when this one came."""

    @classmethod
    async def open(cls, url: str, *, readers: int = READERS, batch: int = BATCH, waiting: int = WAITING) -> Store:
        """Connect; ``BadDatabase`` with a sentence when that can't be. Migrations are ``broker.store.migrate``'s."""
        base = await asyncio.to_thread(database, url)
        store = cls(base, readers=readers, batch=batch, waiting=waiting)
        loop = asyncio.get_running_loop()
        store._opened = loop.create_future()
        store._thread = threading.Thread(target=store._run, args=(loop,), name="store-writer", daemon=True)
        store._thread.start()
        try:
            store.first = await store._opened
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def shared(self) -> bool:
        """Other brokers may write to the same database."""
        return self._base.url.get_backend_name() != "sqlite"

    def listen(self, listener: Listener) -> None:
        """After every commit that logged something, in the writer's thread: the entries and the rows it wrote, in
        order."""
        self._listeners.append(listener)

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` in a transaction; returns after it is durable. ``Overloaded`` when too many wait already."""
        if self._closing:
            raise ShuttingDown
        if self._queue.qsize() >= self._waiting:
            raise Overloaded
        task = _Task(job, asyncio.get_running_loop())
        self._queue.put(task)
        return await task.future

    async def read(self, job: Job[T]) -> T:
        """Run ``job`` on one consistent view of what is committed."""
        if self._closing:
            raise ShuttingDown
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, self._read, job)

    async def close(self) -> None:
        """Finish what waits, then let go of the database. Safe to call twice."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
            if self._thread is not None:
                await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._pool.shutdown)
            self._reader.dispose()
            self._base.close()

    def read_here(self, job: Job[T]) -> T:
        """As ``read``, for those who are in a thread of their own already: it waits, and the event loop isn't asked.

        A reader's thread does it, so that closing waits for it as for every other read.
        """
        if self._closing:
            raise ShuttingDown
        return self._pool.submit(self._read, job).result()

    def _read(self, job: Job[T]) -> T:
        with self._reader.connect() as connection:
            return job(Unit(connection))

    # --- the writer's thread --------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._opened is not None
        try:
            first = self._connect()
        except Exception as error:
            loop.call_soon_threadsafe(_fail, self._opened, error)
            return
        loop.call_soon_threadsafe(self._opened.set_result, first)
        closing = False
        while not closing:
            batch, closing = self._next_batch()
            if batch:
                self._commit(batch)
        self._disconnect()
        self._engine.dispose()

    def _connect(self) -> bool:
        self._connection = self._engine.connect()
        return self._base.enter(self._connection)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()

    def _next_batch(self) -> tuple[list[_Task[Any]], bool]:
        """Everything that waits, up to the batch's size; True at the end of the last."""
        task = self._queue.get()
        batch: list[_Task[Any]] = []
        while task is not None:
            batch.append(task)
            if len(batch) >= self._batch:
                return batch, False
            try:
                task = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Task[Any]]) -> None:
        """Run a batch, make it durable, tell everybody."""
        unit: Unit | None = None
        try:
            if self._connection is None:
                self._connect()
            assert self._connection is not None
            unit = self._transaction(self._connection, batch)
        except Exception as error:
            # Nothing of this batch is durable, so nobody may believe it is. The next one gets a fresh connection.
            for task in batch:
                task.error = task.error or error
            self._disconnect()
        if unit is not None and unit.entries:
            for listener in self._listeners:
                listener(unit.entries, unit.saved)
        for loop in {task.loop for task in batch}:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, [task for task in batch if task.loop is loop])

    def _transaction(self, connection: Connection, batch: list[_Task[Any]]) -> Unit | None:
        """All jobs in one transaction; with what it logged and wrote.

        Nearly always nothing fails, so at first nobody pays for a savepoint. When a job fails that has changed
        something, everything is undone, and all jobs run again, each behind a savepoint of its own. They may run twice
        because a job's only effect is on its unit.
        """
        done = self._run_all(connection, batch, savepoints=False)
        if done is not None or len(batch) == 1:
            return done
        return self._run_all(connection, batch, savepoints=True)

    def _run_all(self, connection: Connection, batch: list[_Task[Any]], *, savepoints: bool) -> Unit | None:
        """One try, committed; None: undone, because a job failed that can't be undone alone without a savepoint."""
        unit = Unit(connection, savepoints=savepoints)
        with connection.begin() as transaction:
            self._base.begin(connection)
            for task in batch:
                task.result = task.error = None
                try:
                    with unit.job():
                        task.result = task.job(unit)
                except Exception as error:
                    if connection.invalidated or unit.spoilt(error):
                        raise
                    task.error = error
                    if unit.misfit is not None or (unit.changed and not savepoints):
                        transaction.rollback()
                        return None
            try:
                unit.flush()
            except Exception as error:
                if unit.misfit is None:
                    raise
                batch[0].error = error  # of a batch of one; of others each is run again
                transaction.rollback()
                return None
        return unit


def _settle(tasks: list[_Task[Any]]) -> None:
    for task in tasks:
        task.settle()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
