"""Starts processes that are sure to end with the process that wanted them, however that one ends.

One `Keeper` is one small child process (see `_keeper.py`) that owns everything it is asked to run. Closing it, or dying
without closing it, ends all of that and removes the directories it was given. Safe to use from several threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class CannotRun(RuntimeError):
    """A process could not be started, or the keeper is gone."""


class Keeper:
    """Runs named processes.

    :param removes: directories to remove when everything has ended.
    """

    def __init__(self, *, removes: Sequence[Path] = ()) -> None:
        script = Path(__file__).with_name("_keeper.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), *map(str, removes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._turn = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: int | None = None,
        stop_signal: signal.Signals = signal.SIGKILL,
    ) -> int:
        """Start a process in a process group of its own, its output appended to `log`; return its pid.

        :param env: added to this process's environment.
        :param user: the numeric user (and group) to step down to; None stays.
        :param stop_signal: what it is stopped with; SIGKILL follows after 5 s.
        :raises CannotRun: the program could not be started.
        """
        answer = self._order(
            run=name,
            argv=[str(word) for word in argv],
            log=str(log),
            env={**os.environ, **(env or {})},
            cwd=None if cwd is None else str(cwd),
            user=user,
            stop_signal=int(stop_signal),
        )
        return int(answer["pid"])

    def exited(self) -> dict[str, int]:
        """The processes that ended by themselves, with their exit codes (negative: the signal)."""
        return dict(self._order(poll=True)["exited"])

    def stop(self, name: str, *, with_signal: signal.Signals | None = None) -> int:
        """End one process and wait for it; return its exit code."""
        return int(self._order(stop=name, signal=None if with_signal is None else int(with_signal))["code"])

    def close(self, *, keep_directories: bool = False) -> None:
        """End everything and wait for it."""
        if self._process.poll() is None and keep_directories:
            self._order(keep=True)
        with self._turn:
            if self._process.stdin and not self._process.stdin.closed:
                self._process.stdin.close()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _order(self, **order: Any) -> dict[str, Any]:
        with self._turn:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except (OSError, ValueError) as error:
                raise CannotRun("the keeper of this run's processes is gone") from error
            if not line:
                raise CannotRun("the keeper of this run's processes is gone")
            answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CannotRun(answer["error"])
        return answer
