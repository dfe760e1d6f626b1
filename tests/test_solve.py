"""``lendmesh solve`` from outside: documents in, tables, JSON and pictures out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lendmesh.cli import run
from lendmesh.problems import reference
from lendmesh.problems.building import understand
from lendmesh.problems.canvas import cut, spans, ticks, wide
from lendmesh.problems.mistakes import nearest
from lendmesh.problems.plot import picture
from lendmesh.problems.solving import Run
from lendmesh.problems.usage import usage
from optimizer.effort import Progress
from optimizer.problem import Problem
from optimizer.solution import Solution
from optimizer.solve import solve

ROOT = Path(__file__).resolve().parents[1]
SVG = "{http://www.w3.org/2000/svg}"
Solved = Callable[..., dict[str, Any]]

PRIORITY = """
offers:
  - {id: near, cluster: x, device: h100, price: 2.40, count: 8, region: eu}
  - {id: far, cluster: y, device: a100, price: 1.20, count: 18, region: us}
requests:
  - {id: first, tenant: t, devices: 8, duration: 1h, device: h100, priority: 5}
  - {id: second, tenant: u, devices: 4, duration: 2h}
  - {id: third, tenant: u, devices: 16, duration: 1h, price_cap: 2}
"""
WINDOWS = """
starts: [0, 1h, 6h]
offers:
  - {id: a, cluster: x, device: h100, price: 3, count: 8, prices: [{from: 6h, price: 1}], later: [{in: 1h, units: 4}]}
requests:
  - {id: early, tenant: t, devices: 8, duration: 1h}
  - {id: patient, tenant: t, devices: 12, duration: 2h, start_by: 6h, deadline: 9h}
"""
SPLIT = """
offers:
  - {id: a, cluster: x, price: 1, nodes: [8]}
  - {id: b, cluster: y, price: 2, nodes: [8, 4]}
requests:
  - {id: gang, tenant: t, workers: 3, devices: 4, duration: 1h, same_node: true, split: 2}
"""
RUNNING = """
offers:
  - {id: a, cluster: x, price: 2, count: 4}
  - {id: b, cluster: y, price: 1, count: 8}
requests:
  - {id: stays, tenant: t, devices: 4, duration: 1h, running: {on: a}}
  - {id: new, tenant: u, devices: 8, duration: 1h}
shares:
  - {tenant: u, guaranteed: 8}
"""


@pytest.fixture
def solved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Solved:
    """The answer to a document, as the command prints it for programs."""

    def answer(text: str, *options: str) -> dict[str, Any]:
        file = tmp_path / "problem.yaml"
        file.write_text(text)
        assert run(["solve", str(file), "--out", "json", *options]) == 0
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    return answer


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command prints for people, blanks made one."""

    def words(text: str, *options: str) -> str:
        file = tmp_path / "problem.yaml"
        file.write_text(text)
        assert run(["solve", str(file), *options]) == 0
        return "\n".join(" ".join(line.split()) for line in capsys.readouterr().out.splitlines())

    return words


def where(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {each["request"]: [part["offer"] for part in each["parts"]] for each in answer["placements"]}


# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_higher_priority_is_served_and_the_answer_says_what_it_costs(solved: Solved) -> None:
    answer = solved(PRIORITY)
    assert where(answer) == {"first": ["near"], "third": ["far"]}
    assert answer["status"] == "optimal"
    assert answer["gap"] == 0
    assert answer["cost"] == "38.40"
    third = next(each for each in answer["placements"] if each["request"] == "third")
    assert (third["price"], third["cost"], third["start"], third["duration"]) == ("1.20", "19.20", "0s", "1h")
    (left,) = answer["unplaced"]
    assert left["request"] == "second"
    assert left["eligible"] == 2
    assert left["changes"]
    assert all(change["offer"] in ("near", "far") and change["detail"] for change in left["changes"])


def test_the_tables_say_where_why_what_is_left_and_how_good(told: Callable[..., str]) -> None:
    words = told(PRIORITY)
    for line in (
        "first t near now 1h 8 2.40 19.20",
        "third u far now 1h 16 1.20 19.20",
        "Not placed",
        "near x h100 8 8 2.40",
        "least cost $38.40 $38.40 proved best",
    ):
        assert line in words, words
    assert re.search(r"^second u 4 2h .+", words, re.MULTILINE)
    assert re.search(r"^2 of 3 requests placed for \$38\.40; no plan is better; \d+\.\d\d s$", words, re.MULTILINE)


def test_welfare_leaves_out_what_costs_more_than_it_is_worth(solved: Solved) -> None:
    answer = solved(
        "aim: welfare\noffers: [{id: a, cluster: x, price: 2, count: 8}]\nrequests:\n"
        " - {id: worth, tenant: t, devices: 4, duration: 1h, value: 9}\n"
        " - {id: not, tenant: t, devices: 4, duration: 1h, value: 7.999999}\n"
    )
    assert where(answer) == {"worth": ["a"]}
    (goal,) = answer["goals"]
    assert (goal["name"], goal["unit"], goal["reached"], goal["bound"]) == ("welfare", "µUSD", 1_000_000, 1_000_000)
    assert answer["unplaced"][0]["removed"] == {"value": 1}


def test_what_may_wait_starts_when_it_is_cheap_and_there_is_room(solved: Solved, told: Callable[..., str]) -> None:
    answer = solved(WINDOWS)
    starts = {each["request"]: (each["start"], each["price"]) for each in answer["placements"]}
    assert starts == {"early": ("0s", "3.00"), "patient": ("6h", "1.00")}
    (offer,) = answer["offers"]
    assert offer["over_time"] == [
        {"from": "0s", "supply": 8, "used": 8},
        {"from": "1h", "supply": 12, "used": 0},
        {"from": "6h", "supply": 12, "used": 12},
    ]
    assert "patient t a in 6h 2h 12 1.00 24.00" in told(WINDOWS)


def test_workers_may_be_spread_and_nodes_are_named(solved: Solved, told: Callable[..., str]) -> None:
    (placed,) = solved(SPLIT)["placements"]
    assert {part["offer"]: part["workers"] for part in placed["parts"]} == {"a": 2, "b": 1}
    assert sum(node["units"] for part in placed["parts"] for node in part["nodes"]) == 12
    assert placed["cost"] == "16.00"
    assert "a ×2 + b ×1" in told(SPLIT)


def test_a_form_that_is_faster_ends_sooner(solved: Solved) -> None:
    answer = solved(
        "offers: [{id: a, cluster: x, device: h200, price: 3, count: 8}]\nrequests:\n"
        " - {id: r, tenant: t, devices: 8, duration: 3h, device: h100, or: [{device: h200, devices: 4, speed: 1.5}]}\n"
    )
    (placed,) = answer["placements"]
    assert (placed["form"], placed["duration"], placed["devices"], placed["cost"]) == (1, "2h", 4, "24.00")


def test_a_running_lease_stays_and_shares_are_reported(solved: Solved, told: Callable[..., str]) -> None:
    answer = solved(RUNNING)
    assert where(answer) == {"stays": ["a"], "new": ["b"]}
    assert {each["request"]: each["running"] for each in answer["placements"]} == {"stays": True, "new": False}
    assert answer["fairness"]["tenants"]["u"]["entitled_placed"] == 8
    words = told(RUNNING)
    assert "a (stays)" in words
    assert "u 8 8 8 8" in words


def test_limits_hold_over_what_they_are_about(solved: Solved) -> None:
    answer = solved(
        "offers:\n - {id: a, cluster: x, price: 1, count: 8, spot: true}\n - {id: b, cluster: x, price: 2, count: 8}\n"
        "requests:\n - {id: r, tenant: t, workers: 3, devices: 4, duration: 1h, split: 2}\n"
        " - {id: s, tenant: t, devices: 4, duration: 1h, spot: false}\n"
        "quotas: [{id: exposure, devices: 4, only: {spot: true}, tenants: t}]\n"
        "budgets: [{id: m, remaining: 8, tenants: t}]"
    )
    assert where(answer) == {"s": ["b"]}


def test_everything_about_one_request_is_told(told: Callable[..., str]) -> None:
    words = told(PRIORITY, "--why", "third")
    assert "third of u: 16 devices for 1h" in words
    assert "goes to far, now, for 1h: 16 devices at $1.20 a device-hour, $19.20 at most" in words
    assert "near" in words
    words = told(PRIORITY, "--why", "second")
    assert "is not placed: " in words
    assert "IT WOULD BE PLACED WITH" in words


def test_the_example_solves_and_places_most_of_it(capsys: pytest.CaptureFixture[str], solved: Solved) -> None:
    assert run(["solve", "--example"]) == 0
    answer = solved(capsys.readouterr().out)
    assert answer["status"] == "optimal"
    assert "a worker instead" in str(answer["unplaced"])
    assert len(answer["placements"]) > len(answer["unplaced"]) > 0
    assert any(part["offer"] == "fra-h100-spot" for each in answer["placements"] for part in each["parts"])


def test_the_answer_is_kept_in_a_file_too(tmp_path: Path, solved: Solved) -> None:
    answer = solved(PRIORITY, "--save", str(tmp_path / "answer.json"))
    kept = json.loads((tmp_path / "answer.json").read_text())
    assert kept == answer


def test_the_same_seed_gives_the_same_answer(solved: Solved) -> None:
    first, second = (solved(PRIORITY, "--seed", "7") for _ in range(2))
    for answer in (first, second):
        answer.pop("seconds")
        answer.pop("stats")
    assert first == second


def test_a_problem_that_places_nothing_is_an_answer_too(solved: Solved, told: Callable[..., str]) -> None:
    text = (
        "offers: [{id: a, cluster: x, device: h100, price: 2, count: 2}]\n"
        "requests: [{id: r, tenant: t, devices: 4, duration: 1h}]\n"
    )
    assert solved(text)["placements"] == []
    assert "r t 4 1h offer a lacks 2 free 2 devices instead → a" in told(text)


def test_ctrl_c_ends_it_with_the_best_so_far(tmp_path: Path) -> None:
    """A problem that takes long, a signal once the solver is at work, and an answer all the same."""
    file = tmp_path / "long.json"
    offers = [{"id": f"o{at}", "cluster": f"c{at}", "price": 1 + at % 7, "count": 5 + at % 3} for at in range(60)]
    requests = [
        {"id": f"r{at}", "tenant": f"t{at % 9}", "devices": 1 + at * 7 % 5, "duration": f"{1 + at * 11 % 9}h",
         "value": 10 + at * 37 % 101} for at in range(400)
    ]  # fmt: skip
    budgets = [{"id": f"b{at}", "remaining": 150 + at, "tenants": f"t{at}"} for at in range(9)]
    file.write_text(json.dumps({"aim": "welfare", "offers": offers, "requests": requests, "budgets": budgets}))
    code = (
        "import os, signal\n"
        "from lendmesh.problems import solving\n"
        "heard = solving._Task.heard\n"
        "def watch(task, progress):\n"
        "    heard(task, progress)\n"
        "    if len(task.steps) == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "solving._Task.heard = watch\n"
        "from lendmesh.cli import main\n"
        f"main(['solve', {str(file)!r}, '--time', '1h', '--out', 'json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["stopped"] is True
    assert answer["placements"]


def test_a_solver_that_dies_is_told_in_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    def dies(*_: object, **__: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr("optimizer.solve.solve", dies)
    file = tmp_path / "problem.yaml"
    file.write_text(PRIORITY)
    assert run(["solve", str(file)]) == 1
    assert capsys.readouterr().err == "lendmesh: the solver failed, which is a defect of ours: MemoryError: too much\n"


def test_a_solver_that_hangs_is_left_behind_and_the_answer_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    released = threading.Event()

    def hangs(problem: Problem, **how: Any) -> Solution:
        if not how["stop"].asked:
            released.wait()
        return solve(problem, **how)

    monkeypatch.setattr("optimizer.solve.solve", hangs)
    monkeypatch.setattr("lendmesh.problems.solving.PATIENCE_S", 0.2)
    file = tmp_path / "problem.yaml"
    file.write_text(PRIORITY)
    try:
        assert run(["solve", str(file), "--time", "0.1s"]) == 0
        said = capsys.readouterr().out
        assert run(["solve", str(file), "--time", "0.1s", "--out", "json"]) == 0
        answer = json.loads(capsys.readouterr().out)
    finally:
        released.set()
    assert "A stage was left out" in said
    assert "did not end" in said
    assert "did not end" in answer["stats"]["trouble"]
    assert answer["placements"], "what needs no exact solver is done"
    assert answer["stopped"] is False


# -- pictures ---------------------------------------------------------------------------------------------------------


def drawn(text: str, *, steps: list[Progress] | None = None) -> ElementTree.Element:
    problem = understand(text)
    found = Run(solution=solve(problem, time_limit_s=20), steps=steps or [])
    return ElementTree.fromstring(picture(problem, found, title="A <title> & more", summary="words"))


def heard(seconds: float, goal: str, reached: int, bound: int) -> Progress:
    return Progress(seconds=seconds, stage="exact", goal=goal, reached=reached, bound=bound)


def words_of(svg: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in svg.iter(f"{SVG}text")]


def test_the_picture_has_supply_and_demand_prices_tenants_and_the_gap() -> None:
    words = words_of(drawn(PRIORITY))
    for said in ("A <title> & more", "Supply and demand", "Prices", "Who gets what", "How good", "h100", "near", "far"):
        assert said in words
    assert "8 of 8 used" in words
    assert "4 not placed" in words
    assert "16 of 20 placed" in words
    assert "Use over time" not in words


def test_several_starts_are_drawn_over_time() -> None:
    words = words_of(drawn(WINDOWS))
    assert "Use over time" in words
    assert "6h" in words


def test_reached_and_bound_are_drawn_over_the_seconds() -> None:
    text = PRIORITY.replace("\noffers", "\naim: welfare\noffers").replace("duration", "value: 99, duration")
    steps = [heard(at / 2, "welfare", (100 + at) * 10**6, (200 - at) * 10**6) for at in range(10)]
    lines = {each.get("class") for each in drawn(text, steps=steps).iter(f"{SVG}path")}
    assert {"reached", "bound"} <= lines
    mixed = [heard(1, "weight at priority 5", 3, 5), heard(2, "cost", 10**6, 10**5)]
    lines = {each.get("class") for each in drawn(PRIORITY, steps=mixed).iter(f"{SVG}path")}
    assert "gap" in lines


@pytest.mark.parametrize("name", ["<script>", "a & b", '"quoted"', "日本の東京", "x" * 100])
def test_names_are_words_in_the_picture_and_nothing_else(name: str) -> None:
    text = PRIORITY.replace("near", json.dumps(name)).replace("h100", json.dumps(name))
    svg = drawn(text)
    assert not list(svg.iter(f"{SVG}script"))
    assert any(name in (each.text or "") for each in svg.iter(f"{SVG}title"))


def test_nothing_is_drawn_outside_the_picture() -> None:
    offers = "\n".join(
        f"  - {{id: offer-{at}, cluster: c, device: kind-{at % 13}, price: {1 + at / 10}, count: {1 + at * 3}}}"
        for at in range(40)
    )
    requests = "\n".join(
        f"  - {{id: r{at}, tenant: team-{at % 15}, devices: {1 + at % 9}, duration: {1 + at % 7}h, start_by: 6h}}"
        for at in range(60)
    )
    svg = drawn(f"starts: [0, 6h]\noffers:\n{offers}\nrequests:\n{requests}\n")
    width, height = (float(size) for size in svg.get("viewBox", "").split()[2:])
    for shape in svg.iter(f"{SVG}rect"):
        if shape.get("x"):
            left, top = float(shape.get("x", 0)), float(shape.get("y", 0))
            assert 0 <= left <= left + float(shape.get("width", 0)) <= width
            assert 0 <= top <= top + float(shape.get("height", 0)) <= height
    for each in svg.iter(f"{SVG}text"):
        if each.get("x"):
            assert 0 <= float(each.get("x", 0)) <= width
            assert 0 <= float(each.get("y", 0)) <= height


def test_labels_of_a_row_of_bars_do_not_overlap() -> None:
    svg = drawn(PRIORITY)
    boxes = []
    for each in svg.iter(f"{SVG}text"):
        if each.get("x") is None:
            continue
        size, left, base = float(each.get("font-size", 0)), float(each.get("x", 0)), float(each.get("y", 0))
        long = wide(each.text or "", size)
        left -= {"end": long, "middle": long / 2}.get(each.get("text-anchor", ""), 0)
        boxes.append((left, base - size * 0.75, left + long, base, each.text))
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


def test_the_command_writes_the_picture(tmp_path: Path, solved: Solved) -> None:
    solved(WINDOWS, "--plot", str(tmp_path / "p.svg"))
    assert ElementTree.parse(tmp_path / "p.svg").getroot().tag == f"{SVG}svg"


def test_words_are_cut_where_there_is_no_room() -> None:
    assert cut("short", 12, 200) == "short"
    shorter = cut("a rather long name", 12, 60)
    assert shorter.endswith("…")
    assert wide(shorter, 12) <= 60
    assert cut("x", 12, 1) == ""


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.13, 0.41, 4) == [0.2, 0.3, 0.4]
    assert ticks(3, 3, 4) == [3]
    assert spans(7200, 4) == [0, 1800, 3600, 5400, 7200]


# -- arithmetic beside the solver -------------------------------------------------------------------------------------


def test_use_counts_in_every_bucket_that_a_placement_touches() -> None:
    text = WINDOWS.replace("devices: 8, duration: 1h", "devices: 8, duration: 2h")
    problem = understand(text)
    used = usage(problem, solve(problem, time_limit_s=20).placements)["a"]
    assert used.supply == (8, 12, 12)
    assert used.used == (8, 8, 12)
    assert used.fullest == 0


def test_the_nearest_word_is_named_only_when_it_is_near() -> None:
    assert nearest("prize", ["price", "count"]) == "; did you mean 'price'?"
    assert nearest("zebra", ["price", "count"]) == ""


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_names_every_key_as_it_is() -> None:
    """Made by `python -m lendmesh.problems.reference docs/solve.md`."""
    page = (ROOT / "docs" / "solve.md").read_text()
    assert reference.renewed(page) == page
    for anchor in re.findall(r"\]\(#([^)]+)\)", page):
        headings = [
            re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^#+ (.+)$", page, re.M)
        ]
        assert headings.count(anchor) == 1, anchor


def test_every_key_means_something() -> None:
    for line in (reference.keys() + reference.answers()).splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line
