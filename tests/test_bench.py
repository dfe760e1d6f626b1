"""The bench's own arithmetic: a wrong percentile would make every figure wrong. No timing is asserted."""

from __future__ import annotations

import math
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bench.__main__ import chosen, sections
from tests.bench.figures import mebibytes, percentile, rate, seconds, shares, steps
from tests.bench.report import markdown, show
from tests.bench.section import Bench, Figure, Grid, Outcome, Section


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_a_measured_value_with_enough_values_not_above_it(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) < percent / 100 * len(values)


def test_the_99th_percentile_of_a_hundred_values_is_not_the_highest() -> None:
    assert percentile(range(1, 101), 99) == 99
    assert percentile(range(1, 101), 50) == 50
    assert percentile([7.0], 99) == 7.0


def test_no_percentile_is_made_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)
    with pytest.raises(ValueError, match="percentage"):
        percentile([1.0], 0)


def test_the_steps_of_a_request_sum_up_to_the_whole_also_when_one_was_not_seen() -> None:
    order = ("queued", "solving", "reserved", "held", "active")
    seen = {"queued": 10.0, "reserved": 10.2, "held": 10.7, "active": 11.0}
    took = steps(seen, order)
    assert list(took) == ["reserved", "held", "active"]
    assert math.isclose(sum(took.values()), 1.0)


def test_shares_are_of_the_whole_over_all_measurements() -> None:
    found = shares({"held": [3.0, 3.0], "active": [1.0, 1.0]})
    assert found == {"held": 0.75, "active": 0.25}
    assert shares({"held": [0.0]}) == {"held": 0.0}


def test_figures_are_written_with_the_unit_a_person_reads() -> None:
    assert [seconds(value) for value in (160.2, 11.13, 0.4567, 0.000106)] == ["160 s", "11.1 s", "457 ms", "106 µs"]
    assert [rate(value) for value in (1234.5, 18.04)] == ["1,234/s", "18.0/s"]
    assert mebibytes(150 << 20) == "150 MiB"


OUTCOME = Outcome(
    how="As it was.",
    figures=[Figure("p50", "0.4 s", "< 1 s", True), Figure("p99", "9 s", "< 3 s", False), Figure("peer", "160 s")],
    grids=[Grid("Steps", ("step", "share"), [("held | lent", "75 %")])],
)


def test_a_missed_target_is_said_as_loudly_as_a_met_one() -> None:
    text = StringIO()
    show(Console(file=text, width=120), "latency", OUTCOME)
    assert "MISSED" in text.getvalue()
    page = markdown([("CPU", "two of them")], [("latency", OUTCOME)], quick=True)
    assert "| p99 | 9 s | < 3 s | MISSED |" in page
    assert "| p50 | 0.4 s | < 1 s | met |" in page
    assert "| peer | 160 s |  |  |" in page
    assert "held \\| lent" in page
    assert "two of them" in page
    assert "not figures to quote" in page


def test_sections_are_found_by_name_and_an_unknown_one_is_refused() -> None:
    every = sections()
    assert {"latency", "burst", "offers", "grants", "memory"} <= {section.name for section in every}
    assert [one.name for one in chosen(every, ["burst"])] == ["burst"]
    assert chosen(every, []) == [section for section in every if not section.long]
    assert [one.name for one in chosen(every, ["peers"])] == ["peers"]
    with pytest.raises(LookupError, match="there are: "):
        chosen(every, ["brust"])


def test_what_sections_share_is_made_once() -> None:
    bench, made = Bench(), []
    assert not bench.made("world")
    assert bench.shared("world", lambda: made.append(1) or "w") == "w"  # type: ignore[func-returns-value]  # counts
    assert bench.shared("world", lambda: "another") == "w"
    assert bench.made("world")
    assert made == [1]


def test_a_section_is_data() -> None:
    section = Section(name="x", order=1, about="", run=lambda bench: OUTCOME)
    assert section.run(Bench()) is OUTCOME
