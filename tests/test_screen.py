"""Tables that give way on narrow screens and lose nothing in a pipe; reasons that say first what would help."""

from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from broker.wire.base import Money, price
from broker.wire.devices import Kind
from broker.wire.requests import Alternative, PlacementView, Reason, RequestState, RequestView
from lendmesh import because, show
from lendmesh.demo import stock
from lendmesh.grid import Column, Grid

ID = "ofr-01ng910t4yzn11g4r7zabay9"


def drawn(what: RenderableType, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(what)
    return out.getvalue().splitlines()


def table() -> Grid:
    grid = Grid(
        "OFFER", Column("WHY", fold=True), Column("FREE", right=True), Column("REGION", drop=1), Column("ZONE", drop=2)
    )
    grid.add(ID, "Devices do not match the selectors, too few free devices.", "13", "eu-north-1", "eu-north-1a")
    grid.add(ID.replace("9", "8"), "Costlier.", Text("2", "green"), "us-east-1", "us-east-1a")
    return grid


@pytest.mark.parametrize("width", range(60, 160, 5))
def test_no_line_is_wider_than_the_screen_and_no_id_is_broken(width: int) -> None:
    lines = drawn(table(), width)
    assert all(cell_len(line) <= width for line in lines)
    assert sum(line.startswith(ID) for line in lines) == 1


def test_columns_are_left_out_in_their_order_and_what_must_stay_stays() -> None:
    heads = [drawn(table(), width)[0].split() for width in (140, 80, 70, 57)]
    assert heads[0] == ["OFFER", "WHY", "FREE", "REGION", "ZONE"]
    assert heads[1] == ["OFFER", "WHY", "FREE", "REGION"] or heads[1] == heads[0]
    assert heads[-1] == ["OFFER", "WHY", "FREE"]
    assert all(set(narrower) <= set(wider) for wider, narrower in itertools.pairwise(heads))


def test_folded_text_is_all_there() -> None:
    words = " ".join(" ".join(drawn(table(), 60)).split())
    for word in ("Devices", "match", "selectors,", "free", "devices."):
        assert word in words


def test_numbers_end_in_one_column() -> None:
    lines = drawn(table(), 140)
    ends = {line.index(number) + len(number) for line, number in zip(lines, (" FREE", " 13", " 2"), strict=True)}
    assert len(ends) == 1


def test_a_column_that_may_go_and_says_nothing_goes() -> None:
    grid = Grid("A", Column("B", drop=1))
    grid.add("x", "–")
    assert drawn(grid, 80) == ["A", "x"]


def test_a_row_has_as_many_cells_as_there_are_columns() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Grid("A", "B").add("x")


# -- reasons ----------------------------------------------------------------------------------------------------------


def refused(*reasons: Reason, placement: PlacementView | None = None) -> RequestView:
    return RequestView.model_construct(
        id="req-1", state=RequestState.REFUSED, reasons=list(reasons), placement=placement, message=""
    )


def told(view: RequestView) -> list[str]:
    out = io.StringIO()
    because.placement(view, Console(file=out, width=200, highlight=False))
    return out.getvalue().splitlines()


def test_what_would_help_comes_first_and_the_nearest_misses_share_a_line() -> None:
    short = [Reason(reason="group", detail=f"Offer ofr-{n} lacks {n} free.") for n in range(1, 6)]
    view = refused(
        *short,
        Reason(reason="count", detail="Too few free devices.", offers=4),
        Reason(reason="region", detail="Region not allowed.", offers=1),
        Reason(
            reason="would-fit",
            detail="It would be placed with a price cap of $2.40 per device-hour.",
            change={"price_cap": "2.40", "offer": "ofr-9", "cost": "57.60", "cluster": "aurora"},
        ),
        Reason(reason="would-fit", detail="…", change={"devices": 6, "offer": "ofr-8", "cost": "5.40", "cluster": "b"}),
    )
    assert told(view) == [
        "It would fit with",
        "  price cap $2.40 → aurora, $57.60 in all",
        "  6 devices instead → b, $5.40 in all",
        "Why not",
        "    4 offers  too few free devices",
        "    1 offer   region not allowed",
        "  closest: offer ofr-1 lacks 1 free; offer ofr-2 lacks 2 free; offer ofr-3 lacks 3 free; and 2 more",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"region": "eu-west-1"}, "region eu-west-1"),
        ({"confidential": False}, "confidential not required"),
        ({"same_node": False}, "several nodes allowed"),
        ({"budget": "12.00", "of": "b/research"}, "budget b/research +$12.00"),
        ({"quota": 4, "of": "q"}, "4 devices more in quota q"),
        ({"duration": "1d"}, "duration 1d"),
        ({"workers": 3}, "3 workers instead"),
        ({"devices": 3, "per": "worker"}, "3 devices for each worker instead"),
        ({"this": 1, "that": 2}, "It would be placed otherwise."),
    ],
)
def test_every_change_is_said_in_a_few_words(change: dict[str, object], words: str) -> None:
    view = refused(Reason(reason="would-fit", detail="It would be placed otherwise.", change={**change, "offer": "o"}))
    assert told(view) == ["It would fit with", f"  {words}"]


def test_of_many_losers_the_six_cheapest_are_named() -> None:
    losers = [
        Alternative(offer=f"ofr-{n}", cluster="c", price=price(n * 100_000), reason="costlier", detail="Costlier.")
        for n in range(20, 0, -1)
    ]
    placed = PlacementView(
        cluster="aurora",
        offer="ofr-0",
        kind=Kind(driver="gpu.nvidia.com", model="H100", partition="1g.10gb"),
        devices=2,
        price=price(450_000),
        cost=Money.of(900_000),
        alternatives=losers,
        solver={"status": "feasible", "gap": 0.0123},
    )
    view = RequestView.model_construct(id="req-1", state=RequestState.ACTIVE, reasons=[], placement=placed)
    lines = told(view)
    assert lines[0].startswith("2 × H100 · 1g.10gb from aurora at $0.45 a device-hour: at most $0.90")
    assert "at most 1.2% from the best plan" in lines[0]
    assert [line.split()[0] for line in lines[2:-1]] == [f"ofr-{n}" for n in range(1, 7)]
    assert lines[-1] == "and 14 more"


# -- small things -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (59, "in 59s"),
        (-90, "1m30s ago"),
        (3_700, "in 1h1m"),
        (-7_199, "1h59m ago"),
        (364.9 * 86_400, "in 364d"),
    ],
)
def test_times_are_said_as_people_say_them(seconds: float, words: str) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert show.when(now + timedelta(seconds=seconds), now=now) == words


def test_a_bar_has_a_glyph_for_each_device_until_it_gets_long() -> None:
    few = stock.Stock(model="H100", partition="", memory=None, total=18, free=15, busy=3, offered=13)
    assert stock.bar(few).plain == "█" * 13 + "▒" * 2 + "░" * 3
    many = stock.Stock(model="H100", partition="", memory=None, total=10_000, free=5_001, busy=4_999, offered=5_000)
    bar = stock.bar(many).plain
    assert {"█", "▒", "░"} == set(bar)
    assert len(bar) <= stock.LONGEST_BAR + 2
