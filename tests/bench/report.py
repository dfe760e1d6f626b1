"""The report: tables for a terminal, and the same as Markdown for the README. Builds text, decides nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bench.machine import Facts
from tests.bench.section import Outcome

MARKS = {True: "met", False: "MISSED", None: ""}
STYLES = {True: "green", False: "bold red", None: ""}
SMOKE = "A quick run: a tenth of the work, to see that everything runs. These are not figures to quote."


def show_machine(console: Console, facts: Facts) -> None:
    table = Table(title="The machine", title_justify="left", show_header=False)
    for name, value in facts:
        table.add_row(name, value)
    console.print(table)


def show(console: Console, name: str, outcome: Outcome) -> None:
    console.print(f"\n[bold]{name}[/bold]: {escape(outcome.how)}", highlight=False)
    table = Table()
    for column in ("figure", "measured", "should reach on 2 cores", ""):
        table.add_column(column)
    for figure in outcome.figures:
        table.add_row(
            figure.what,
            figure.value,
            figure.target,
            MARKS[figure.met],
            style=STYLES[figure.met] if figure.met is False else "",
        )
    console.print(table)
    for grid in outcome.grids:
        more = Table(title=grid.title, title_justify="left")
        for column in grid.columns:
            more.add_column(column)
        for row in grid.rows:
            more.add_row(*row)
        console.print(more)


def markdown(facts: Facts, outcomes: Sequence[tuple[str, Outcome]], *, quick: bool = False) -> str:
    """The whole report as Markdown."""
    parts = [_rows(("machine", ""), facts)]
    if quick:
        parts.insert(0, SMOKE)
    for name, outcome in outcomes:
        parts.append(f"### {name}\n\n{outcome.how}")
        rows = [(figure.what, figure.value, figure.target, MARKS[figure.met]) for figure in outcome.figures]
        parts.append(_rows(("figure", "measured", "should reach on 2 cores", ""), rows))
        parts += [f"{grid.title}:\n\n{_rows(grid.columns, grid.rows)}" for grid in outcome.grids]
    return "\n\n".join(parts) + "\n"


def as_json(facts: Facts, outcomes: Sequence[tuple[str, Outcome]], *, quick: bool = False) -> str:
    """The whole report as JSON, and what the sections measured beyond it."""
    sections = {
        name: {
            "how": outcome.how,
            "figures": [asdict(figure) for figure in outcome.figures],
            "grids": [asdict(grid) for grid in outcome.grids],
            "data": outcome.data,
        }
        for name, outcome in outcomes
    }
    return json.dumps({"machine": dict(facts), "quick": quick, "sections": sections}, indent=1) + "\n"


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
