"""The picture of an answer: supply and demand, prices, who gets what, how the gap closed, and use over time."""

from __future__ import annotations

from dataclasses import dataclass

from lendmesh.problems import bars, market, timeline
from lendmesh.problems.canvas import CARD, DIM, GRID, Frame, Sheet
from lendmesh.problems.solving import Run
from optimizer.problem import Problem

WIDTH, EDGE, GUTTER, HEAD = 1200.0, 28.0, 20.0, 82.0
"""Of the picture; around it and between its cards; above them."""
PAD, TITLE = 22.0, 58.0
"""Within a card: around its content, and what its title takes."""
CARD_HEIGHT = 350.0


@dataclass(frozen=True)
class _Spot:
    left: float
    top: float
    width: float
    height: float


def picture(problem: Problem, run: Run, *, title: str, summary: str) -> str:
    """SVG text, well-formed, every word of the problem escaped."""
    half = (WIDTH - 2 * EDGE - GUTTER) / 2
    rows = timeline.rows(problem, run.solution) if len(problem.starts) > 1 else []
    long = timeline.height(rows) + TITLE + PAD if rows else 0.0
    height = HEAD + 2 * CARD_HEIGHT + GUTTER + EDGE + (long + GUTTER if rows else 0)
    sheet = Sheet(width=WIDTH, height=height, title=title, about=summary)
    sheet.text(EDGE, 42, title, size=22, bold=True, room=WIDTH - 2 * EDGE)
    sheet.text(EDGE, 65, summary, size=13.5, fill=DIM, room=WIDTH - 2 * EDGE)
    upper, lower, right = HEAD, HEAD + CARD_HEIGHT + GUTTER, EDGE + half + GUTTER
    bars.supply(sheet, _card(sheet, _Spot(EDGE, upper, half, CARD_HEIGHT), *bars.supply_title(problem)), problem, run)
    market.prices(
        sheet, _card(sheet, _Spot(right, upper, half, CARD_HEIGHT), *market.prices_title(problem, run)), problem, run
    )
    bars.tenants(sheet, _card(sheet, _Spot(EDGE, lower, half, CARD_HEIGHT), *bars.TENANTS), problem, run)
    market.gap(
        sheet, _card(sheet, _Spot(right, lower, half, CARD_HEIGHT), *market.gap_title(problem, run)), problem, run
    )
    if rows:
        spot = _Spot(EDGE, lower + CARD_HEIGHT + GUTTER, WIDTH - 2 * EDGE, long)
        timeline.draw(sheet, _card(sheet, spot, *timeline.TITLE), rows, problem)
    return sheet.done()


def _card(sheet: Sheet, spot: _Spot, title: str, about: str) -> Frame:
    """A white card with its title; returns what is left for its content."""
    sheet.box(spot.left, spot.top, spot.width, spot.height, CARD, round_=8, stroke=GRID)
    sheet.text(spot.left + PAD, spot.top + 29, title, size=15, bold=True)
    sheet.text(spot.left + PAD, spot.top + 46, about, size=11.5, fill=DIM, room=spot.width - 2 * PAD)
    return Frame(spot.left + PAD, spot.top + TITLE, spot.left + spot.width - PAD, spot.top + spot.height - PAD + 4)
