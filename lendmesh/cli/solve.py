"""``lendmesh solve``: a placement problem from a file, its answer as tables, JSON or a picture; needs no broker."""

import argparse
import re
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from broker.kit.durations import parse_duration
from lendmesh import show
from lendmesh.cli import MISUSED, OK, Failed

if TYPE_CHECKING:
    from lendmesh.problems.solving import Run
    from optimizer.problem import Problem

LONGEST_S = 86_399
"""The solver takes less than a day."""


def solve(arguments: argparse.Namespace) -> int:
    """Read, solve, print. Exit code 0 for an answer, even if some is not placed; 2 for what poses no problem."""
    if arguments.example:
        print(resources.files("lendmesh.problems").joinpath("example.yaml").read_text("utf-8"), end="")
        return OK
    if arguments.file is None:
        raise Failed("name a file, or - for standard input; `lendmesh solve --example` prints one", code=MISUSED)
    return _solve(arguments, _checked(arguments))


def _checked(arguments: argparse.Namespace) -> float:
    """The time limit, and all options as they may be; before anything is read, so that no work is lost."""
    if not 1 <= arguments.workers <= 64:
        raise Failed("--workers is between 1 and 64", code=MISUSED)
    if not 0 <= arguments.seed < 2**31:
        raise Failed(f"--seed is between 0 and {2**31 - 1}", code=MISUSED)
    if arguments.plot and not arguments.plot.lower().endswith(".svg"):
        instead = f"{arguments.plot.rpartition('.')[0] or arguments.plot}.svg"
        raise Failed(
            f"--plot draws SVG and nothing else (any browser shows and prints it); say --plot {instead}", code=MISUSED
        )
    for path in filter(None, (arguments.plot, arguments.save)):
        if not Path(path).absolute().parent.is_dir():
            raise Failed(f"there is no folder {Path(path).parent} to write {path} to", code=MISUSED)
    return _seconds(arguments.time)


def _seconds(text: str) -> float:
    if part := re.fullmatch(r"([0-9]{0,5}\.[0-9]{1,3})s", text):
        seconds = float(part[1])
    else:
        try:
            seconds = float(parse_duration(text))
        except ValueError as error:
            raise Failed(f"--time: {error}", code=MISUSED) from None
    if not 0 < seconds <= LONGEST_S:
        raise Failed("--time is more than nothing and less than a day", code=MISUSED)
    return seconds


def _solve(arguments: argparse.Namespace, seconds: float) -> int:
    from lendmesh.problems import tables, why
    from lendmesh.problems.answer import answer
    from lendmesh.problems.building import understand
    from lendmesh.problems.mistakes import BadDocument, nearest
    from lendmesh.problems.solving import SolverFailed, solved

    try:
        problem = understand(_text(arguments.file))
    except BadDocument as bad:
        told = "".join(f"\n  {line}" for line in bad.lines)
        raise Failed(f"{_named(arguments.file)} poses no problem that can be solved:{told}", code=MISUSED) from None
    names = {ask.id for ask in problem.asks}
    if arguments.why is not None and arguments.why not in names:
        raise Failed(f"--why: there is no request {arguments.why!r}{nearest(arguments.why, names)}", code=MISUSED)
    out = show.console(stderr=True)
    try:
        run = solved(problem, seconds=seconds, seed=arguments.seed, workers=arguments.workers, out=out)
    except SolverFailed as failed:
        raise Failed(f"the solver failed, which is a defect of ours: {failed}") from failed
    plain = answer(problem, run.solution, stopped=run.stopped)
    if arguments.plot:
        _write(arguments.plot, _picture(problem, run, arguments.file))
    if arguments.save:
        _write(arguments.save, plain.model_dump_json(indent=2) + "\n")
    out = show.console()
    if arguments.output != "table":
        show.emit(plain, output=arguments.output)
    elif arguments.why is not None:
        why.about(problem, run.solution, arguments.why, out)
    else:
        tables.draw(problem, run.solution, out)
        out.print(tables.summary(problem, run.solution, stopped=run.stopped), soft_wrap=True)
    return OK


def _picture(problem: "Problem", run: "Run", path: str) -> str:
    from lendmesh.problems.plot import picture
    from lendmesh.problems.tables import summary

    title = "Placement" if path == "-" else f"Placement of {Path(path).name}"
    return picture(problem, run, title=title, summary=summary(problem, run.solution, stopped=run.stopped).plain)


def _text(path: str) -> str:
    from lendmesh.problems.text import MAX_BYTES

    try:
        if path == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        return content.decode("utf-8-sig")
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}", code=MISUSED) from error
    except UnicodeDecodeError as error:
        raise Failed(f"{_named(path)} is not UTF-8 text (byte {error.start})", code=MISUSED) from error


def _named(path: str) -> str:
    return "standard input" if path == "-" else path


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, "utf-8")
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}", code=MISUSED) from error
    print(f"wrote {path}", file=sys.stderr)
