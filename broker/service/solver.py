"""The optimizer in a process of its own, as a function: a problem goes in, a solution comes out.

Python runs one thread at a time, and a solve of hundreds of requests is a third of a second in which nobody else would
be answered; beside it, in another process, everybody is. And what is native code may crash or hang: then that process
is ended and the next solve gets a new one, while the broker itself goes on. Groups that the process knows already
aren't sent again: of a hundred thousand devices' offers hardly any changes between two solves.

    python -m broker.service.solver    # what the process runs: problems on stdin, solutions on stdout
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import structlog

from optimizer.problem import Group, Problem
from optimizer.solution import Solution

_log = structlog.stdlib.get_logger(__name__)
GRACE_S = 2.0
"""So long past its time limit a solve may take (under load; exactness is not what the limit is for)."""
STARTS_S = 30.0
"""The process loads the solver within this time, however busy the machine is."""
_SIZE = struct.Struct(">Q")


class SolverGone(RuntimeError):
    """The process ended, or had to be ended, before it answered; the message says which."""


class SolverProcess:
    """Call it like ``optimizer.solve.solve``, from any thread; one solve at a time. ``close`` ends the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[str, Group] = {}
        self._closed = False

    def __call__(self, problem: Problem, /, *, time_limit_s: float, **how: Any) -> Solution:
        """Raises what ``solve`` raises, or ``SolverGone``."""
        with self._lock:
            process = self._running()
            try:
                answer = self._exchange(process, problem, {"time_limit_s": time_limit_s, **how}, time_limit_s + GRACE_S)
            except (OSError, EOFError, pickle.PickleError) as error:
                self._end()
                raise SolverGone(f"The solver's process is gone ({type(error).__name__}: {error}).") from error
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Solution)
        return answer

    def start(self) -> None:
        """Load the solver now rather than within somebody's first request."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """End the process, and with it a solve that is under way; whoever waits for that gets ``SolverGone``."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def busy(self) -> bool:
        """A solve is under way."""
        return self._lock.locked()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise SolverGone("The broker is shutting down.")
        if self._process is None or self._process.poll() is not None:
            self._end()
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            argv = [sys.executable, "-m", "broker.service.solver"]
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            try:
                _receive(self._process, until=time.monotonic() + STARTS_S)
            except (OSError, EOFError) as error:
                self._end()
                raise SolverGone(f"The solver's process did not start ({error}).") from error
        return self._process

    def _exchange(
        self, process: subprocess.Popen[bytes], problem: Problem, how: Mapping[str, Any], within_s: float
    ) -> object:
        fresh = [group for group in problem.groups if self._known.get(group.id) is not group]
        known = {group.id: group for group in problem.groups}
        sent = io.BytesIO()
        sent.write(pickle.dumps(fresh, pickle.HIGHEST_PROTOCOL))
        _Pickler(sent, known).dump((problem, how))
        until = time.monotonic() + within_s
        _send(process, sent.getvalue(), until=until)
        self._known = known
        # Of our own process, through a pipe that only the two of us hold.
        return pickle.loads(_receive(process, until=until))  # noqa: S301

    def _end(self) -> None:
        process, self._process, self._known = self._process, None, {}
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()


class _Pickler(pickle.Pickler):
    """Groups by their ids."""

    def __init__(self, file: BinaryIO, known: Mapping[str, Group]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._known = known

    def persistent_id(self, obj: object) -> str | None:
        return obj.id if isinstance(obj, Group) and self._known.get(obj.id) is obj else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, known: Mapping[str, Group]) -> None:
        super().__init__(file)
        self._known = known

    def persistent_load(self, pid: str) -> Group:
        return self._known[pid]


def _send(process: subprocess.Popen[bytes], message: bytes, *, until: float) -> None:
    """``TimeoutError`` (an ``OSError``) when it isn't read, ``BrokenPipeError`` when nobody is there to."""
    assert process.stdin is not None
    pipe = process.stdin.fileno()
    os.set_blocking(pipe, False)
    left = memoryview(_SIZE.pack(len(message)) + message)
    while left:
        _, ready, _ = select.select([], [pipe], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError("it doesn't listen")
        left = left[os.write(pipe, left) :]


def _receive(process: subprocess.Popen[bytes], *, until: float) -> bytes:
    """The next message; ``TimeoutError`` (an ``OSError``) when it doesn't come in time, ``EOFError`` when none will."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    (size,) = _SIZE.unpack(_exactly(pipe, _SIZE.size, until))
    return _exactly(pipe, size, until)


def _exactly(pipe: int, size: int, until: float) -> bytes:
    read = bytearray()
    while len(read) < size:
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError("it doesn't answer in time")
        part = os.read(pipe, min(1 << 20, size - len(read)))
        if not part:
            raise EOFError("it ended")
        read += part
    return bytes(read)


def _tell(pipe: BinaryIO, message: bytes) -> None:
    pipe.write(_SIZE.pack(len(message)) + message)
    pipe.flush()


def main() -> None:
    """Solve what comes on stdin until it ends; a broker that was killed ends it too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the broker's to answer
    from optimizer.solve import solve, warm

    asked, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints must not end up in an answer
    warm()
    gc.collect()
    gc.freeze()
    gc.disable()  # a look for garbage in the middle of a solve is waited for; it is looked for between two
    _tell(told, b"ready")
    known: dict[str, Group] = {}
    while head := asked.read(_SIZE.size):
        message = io.BytesIO(asked.read(_SIZE.unpack(head)[0]))
        known.update((group.id, group) for group in pickle.load(message))  # noqa: S301  (our own parent's)
        problem, how = _Unpickler(message, known).load()
        known = {group.id: group for group in problem.groups}
        answer: object
        try:
            answer = solve(problem, **how)
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        _tell(told, pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        del problem, answer
        gc.collect(1)


if __name__ == "__main__":
    main()
