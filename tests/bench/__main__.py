"""`make bench`: run the sections, print each figure beside the machine and beside what it should reach.

    python -m tests.bench                       # everything
    python -m tests.bench latency burst         # only these
    python -m tests.bench --quick               # a tenth of it: does everything run?
    python -m tests.bench --markdown FILE       # the report as Markdown too; --json FILE with all that was measured
    python -m tests.bench peers --large         # the long one: ours beside every peer, the largest instances included

Exits 0 when everything was measured, whether targets were met or not: a figure is news, not a verdict.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import tests.bench
from tests.bench.machine import machine
from tests.bench.report import SMOKE, as_json, markdown, show, show_machine
from tests.bench.section import Absent, Bench, Outcome, Section
from tests.controlplane.parts import DEFAULT_RELEASE, RELEASES


def sections() -> list[Section]:
    """Every module of this package that has a `SECTION`, in their order."""
    found = []
    for module in pkgutil.iter_modules(tests.bench.__path__, f"{tests.bench.__name__}."):
        if not module.name.endswith("__main__"):
            one = getattr(importlib.import_module(module.name), "SECTION", None)
            if isinstance(one, Section):
                found.append(one)
    return sorted(found, key=lambda section: (section.order, section.name))


def chosen(every: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """:raises LookupError: there is no section of such a name; the text says which there are."""
    known = {section.name for section in every}
    if unknown := [name for name in names if name not in known]:
        raise LookupError(f"there is no section {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    return [section for section in every if section.name in names or (not names and not section.long)]


def main() -> int:
    every = sections()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(f"{one.name}: {one.about}" for one in every))
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: does everything run?")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report as Markdown, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured as JSON, too")
    parser.add_argument("--large", action="store_true", help="the instances that take minutes each, too")
    parser.add_argument("--parts", nargs="+", default=(), metavar="PART", help="only these parts of a section")
    parser.add_argument("--k8s-version", choices=sorted(RELEASES), default=DEFAULT_RELEASE)
    arguments = parser.parse_args()
    try:
        asked = chosen(every, arguments.names)
    except LookupError as error:
        parser.error(str(error))
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts = machine(k8s_version=arguments.k8s_version)
    show_machine(console, facts)
    if arguments.quick:
        console.print(SMOKE)
    outcomes: list[tuple[str, Outcome]] = []
    failed = 0
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s  {line}[/dim]", highlight=False)

    bench = Bench(
        quick=arguments.quick,
        large=arguments.large,
        parts=frozenset(arguments.parts),
        k8s_version=arguments.k8s_version,
        say=say,
    )
    with bench.ends:
        for section in asked:
            try:
                outcome = section.run(bench)
            except Absent as lack:
                console.print(f"{section.name}: not measured: {lack}")
                failed += 1
                continue
            except Exception:
                console.print(f"{section.name}: not measured:\n{traceback.format_exc()}", markup=False)
                failed += 1
                continue
            outcomes.append((section.name, outcome))
            show(console, section.name, outcome)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(facts, outcomes, quick=arguments.quick))
    if arguments.json:
        arguments.json.write_text(as_json(facts, outcomes, quick=arguments.quick))
    console.print(f"\n{len(outcomes)} of {len(asked)} sections in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
