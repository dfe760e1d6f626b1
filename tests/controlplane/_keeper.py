"""The process that keeps other processes, and ends them when whoever started it is gone.

Run by `keeper.Keeper` with two pipes. Orders come in on stdin, one JSON object a line, each answered by one line on
stdout. The end of stdin, however it comes about (a close, an exit, a SIGKILL), is the order to end everything: every
child and whatever descends from it is killed, and the directories named on the command line are removed.

A pipe and not the parent-death signal alone, because that signal follows the starting *thread*, and clusters are
started from threads. The children of this process do get it, so they end even if this process is killed. Standard
library only: it starts in a few milliseconds under `python -I -S`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 5.0

libc = ctypes.CDLL(None, use_errno=True)


def die_with_keeper() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Kept:
    """The children by name, and the signal each one is stopped with."""

    def __init__(self, directories: list[str]) -> None:
        self.directories = directories
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.signals: dict[str, int] = {}

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order:
            case {"run": name, **how}:
                return self.run(name, **how)
            case {"poll": _}:
                exited = {name: child.poll() for name, child in self.children.items()}
                return {"exited": {name: code for name, code in exited.items() if code is not None}}
            case {"stop": name, "signal": number}:
                child = self.children.pop(name)
                return {"code": stop(child, number or self.signals[name])}
            case {"keep": _}:
                self.directories = []
                return {}
        return {"error": f"unknown order {order!r}"}

    def run(
        self,
        name: str,
        *,
        argv: list[str],
        log: str,
        env: dict[str, str] | None,
        cwd: str | None,
        user: int | None,
        stop_signal: int,
    ) -> dict[str, Any]:
        stepped_down: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        with open(log, "ab") as out:
            self.children[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=die_with_keeper,
                **stepped_down,
            )
        self.signals[name] = stop_signal
        return {"pid": self.children[name].pid}

    def end(self) -> None:
        for name, child in self.children.items():
            if child.poll() is None and self.signals[name] != signal.SIGKILL:
                os.killpg(child.pid, self.signals[name])
        until = time.monotonic() + PATIENCE_S
        for name, child in self.children.items():
            if self.signals[name] != signal.SIGKILL:
                wait(child, until - time.monotonic())
        sweep()
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)


def stop(child: subprocess.Popen[bytes], number: int) -> int:
    if child.poll() is None:
        os.killpg(child.pid, number)
        if wait(child, PATIENCE_S) is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


def wait(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None


def sweep() -> None:
    """Kill what is left: orphans of our children are ours, since this process is their subreaper."""
    while left := living():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def living() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as told:
        return [int(pid) for pid in told.read().split()]


def main() -> None:
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Handlers that do nothing, and not SIG_IGN, which the children would inherit.
    for unmoved in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(unmoved, lambda number, frame: None)
    kept = Kept(sys.argv[1:])
    try:
        for line in sys.stdin:
            try:
                answer = kept.obey(json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    finally:
        kept.end()


if __name__ == "__main__":
    main()
