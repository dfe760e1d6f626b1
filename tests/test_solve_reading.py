"""``lendmesh solve``: what may stand in a problem's file, and the sentence for each thing that may not."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest

from lendmesh.cli import run
from lendmesh.problems.building import understand
from lendmesh.problems.mistakes import BadDocument
from lendmesh.problems.text import MAX_BYTES, Lines, Unreadable, read
from optimizer.problem import Aim, Ask, Confidential, Form, Group, Held, Later, Problem, Running, Tier

HOUR = 3600
GOOD = """
offers:
  - {id: a, cluster: x, price: 2.40, count: 8}
requests:
  - {id: r, tenant: t, devices: 2, duration: 1h}
"""


def problem(*, offer: str = "", request: str = "", rest: str = "", offers: str = "", requests: str = "") -> Problem:
    """A small problem with something added to its only offer, its only request, its lists, or its end."""
    return understand(document(offer=offer, request=request, rest=rest, offers=offers, requests=requests))


def document(*, offer: str = "", request: str = "", rest: str = "", offers: str = "", requests: str = "") -> str:
    """Keys given twice would be an error, so the defaults give way to what is said."""
    return "\n".join(
        [
            "offers:",
            f"  - {{{_line({'id': 'a', 'cluster': 'x', 'price': '2.40', 'count': '8'}, offer)}}}",
            *(f"  - {{{each}}}" for each in offers.split("|") if each),
            "requests:",
            f"  - {{{_line({'id': 'r', 'tenant': 't', 'devices': '2', 'duration': '1h'}, request)}}}",
            *(f"  - {{{each}}}" for each in requests.split("|") if each),
            rest,
        ]
    )


def _line(defaults: dict[str, str], said: str) -> str:
    kept = [f"{key}: {value}" for key, value in defaults.items() if not f", {said}".count(f", {key}:")]
    if "nodes:" in said:
        kept = [each for each in kept if not each.startswith("count:")]
    return ", ".join([*kept, said] if said else kept)


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(BadDocument) as caught:
        understand(text)
    return caught.value.lines


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.40", Decimal("2.40")),
        ("0.1", Decimal("0.1")),
        ("1e2", Decimal("1e2")),
        ("+8", 8),
        ("-8", -8),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("12:30", "12:30"),
        ("0x10", "0x10"),
        ("2026-11-23", "2026-11-23"),
        ("'2.40'", "2.40"),
        (".inf", Decimal("Infinity")),
        ("[1, {a: [b]}]", [1, {"a": ["b"]}]),
        ('{"a": 2.40, "b": [1, null], "c": "\\ud83d\\ude00"}', {"a": Decimal("2.40"), "b": [1, None], "c": "😀"}),
        ("{\n\t\"a\": 1\n}", {"a": 1}),
        ("", None),
    ],
)  # fmt: skip
def test_a_value_is_read_as_it_is_written(text: str, value: Any) -> None:
    assert read(text) == value
    assert str(read(text)) == str(value)


def test_the_same_document_as_yaml_and_as_json_is_the_same_problem() -> None:
    plain = {
        "offers": [{"id": "a", "cluster": "x", "price": 2.4, "count": 8, "later": [{"in": "2h", "units": -3}]}],
        "requests": [{"id": "r", "tenant": "t", "devices": 2, "duration": "1h", "or": [{"device": "b"}]}],
    }
    assert understand(json.dumps(plain)) == problem(
        offer="later: [{in: 2h, units: -3}]", request="or: [{device: b}]"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1]\nb: *x", "line 2: the alias *x is not accepted here; write the value out"),
        ("a: !!python/object:os.system x", "line 1: the tag tag:yaml.org,2002:python/object:os.system is not accepted"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is said twice in one place; which one is meant?"),
        ('{"a": 1, "a": 2}', "'a' is said twice in one place"),
        ("a: 1\n---\nb: 1", "line 2: a second document begins here; one file is one problem"),
        ("a: [1", "line 2: did not find expected"),
        ('{"a": 1,,}', "line 1, column 9: "),
        ("a: \x00", "it has characters that are neither YAML nor JSON"),
        ("? [a]\n: b", "line 1: a key must be a word"),
        ("[" * 40 + "]" * 40, "it is nested deeper than 32 levels"),
        ("[" * 100_000 + "]" * 100_000, "it is nested deeper than 32 levels"),
        ("a:\n" + "\n".join(" " * depth + "- " for depth in range(1, 60)), "nested deeper than 32 levels"),
        ("1" * 5_000, None),
        ("[" + "1" * 5_000 + "]", "has too many digits"),
        ("x" * (MAX_BYTES + 1), "it is larger than 8 MiB"),
    ],
)
def test_what_could_be_misread_or_blow_up_is_refused(text: str, says: str | None) -> None:
    if says is None:
        assert read(text) == text  # a word, which no field takes for a number
        return
    with pytest.raises(Unreadable) as caught:
        read(text)
    assert says in str(caught.value)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, 12)]
    assert mistakes("\n".join(rows)) == ("line 2: the alias *a0 is not accepted here; write the value out",)


def test_lines_are_those_on_which_things_begin() -> None:
    lines = Lines("a:\n  - x: 1\n    y:\n      z: [1,\n 2]\n  - x: 3\n")
    assert lines.of(("a", 0, "y", "z", 1)) == 5
    assert lines.of(("a", 1, "x")) == 6
    assert lines.of(("a", 1, "missing")) == 6
    assert lines.of(("b",)) is None


# -- what the words mean ----------------------------------------------------------------------------------------------


def test_an_offer_says_everything_that_a_group_can_be() -> None:
    read_as = problem(
        offer="device: h100, price: 2.4, nodes: {8: 2, 4: 1}, unit: 2, region: eu, jurisdiction: de, provider: p, "
        "domain: rack-1, spot: true, uninterrupted: 30m, reclaims: 12.5, confidential: true, "
        "min_duration: 1m, max_duration: 7d, "
        "lender: l, tenants: [t, u], later: [{in: 2h, units: +8, node: 2}, {in: 3h, units: -8, node: 0}], "
        'prices: [{from: 6h, price: "1.80"}]'
    )
    assert read_as.groups == (
        Group(
            id="a",
            cluster="x",
            kind="h100",
            price_micros=2_400_000,
            count=20,
            unit=2,
            region="eu",
            jurisdiction="de",
            provider="p",
            domain="rack-1",
            min_duration_s=60,
            max_duration_s=7 * 86_400,
            confidential=True,
            uninterrupted_s=1800,
            reclaims=12_500,
            lender_tenant="l",
            allowed_tenants=frozenset({"t", "u"}),
            per_node=(8, 8, 4),
            later=(Later(at_s=2 * HOUR, units=8, node=2), Later(at_s=3 * HOUR, units=-8, node=0)),
            prices=((6 * HOUR, 1_800_000),),
        ),
    )


def test_a_request_says_everything_that_an_ask_can_be() -> None:
    read_as = problem(
        offers="id: b, cluster: y, device: a100, price: 1, nodes: [8, 8], region: us",
        offer="device: h100, region: eu",
        request="cluster: home, workers: 2, devices: 4, duration: 6h, device: h100, "
        "or: [{device: [a100, v100], devices: 8, workers: 1, speed: 0.5}], split: 2, same_node: true, avoid: a, "
        "clusters: [x, y], regions: eu, jurisdictions: [de, fr], providers: p, confidential: true, spot: false, "
        "restart_cost: 10, price_cap: 2.5, total_cap: 100, value: 120.5, data: {region: eu, gb: 1.5}, "
        "tiers: [{name: home, price_cap: 2, clusters: x, offers: [a]}], not_before: 1h, start_by: 3h, deadline: 12h, "
        "delay_cost_per_hour: 0.5, priority: -3, turn: 7, weight: 2, budgets: m, quotas: [q]",
        rest="starts: [0, 1h, 2h]\negress: {default: 0.09, eu: {us: 0.02}}\nbudgets: [{id: m, remaining: 5}]\n"
        "quotas: [{id: q, devices: 3}]",
    )
    assert read_as.starts == (0, HOUR, 2 * HOUR)
    assert read_as.asks == (
        Ask(
            id="r",
            tenant="t",
            cluster="home",
            workers=2,
            devices=4,
            duration_s=6 * HOUR,
            matched=frozenset({"a"}),
            forms=(Form(matched=frozenset({"b"}), devices=8, workers=1, speed_milli=500),),
            split=2,
            avoid=frozenset({"a"}),
            price_cap_micros=2_500_000,
            total_cap_micros=100_000_000,
            transfer_micros={"us": 30_000},
            clusters=frozenset({"x", "y"}),
            regions=frozenset({"eu"}),
            jurisdictions=frozenset({"de", "fr"}),
            providers=frozenset({"p"}),
            confidential=Confidential.REQUIRE,
            uninterrupted=True,
            restart_micros=10_000_000,
            tiers=(Tier(name="home", price_cap_micros=2_000_000, clusters=frozenset({"x"}), groups=frozenset({"a"})),),
            same_node=True,
            not_before_s=HOUR,
            start_by_s=3 * HOUR,
            end_by_s=12 * HOUR,
            delay_micros=500_000,
            budgets=("m",),
            quotas=("q",),
            priority=-3,
            created=7,
            weight=2,
            value_micros=120_500_000,
        ),
    )


def test_a_running_lease_is_told_in_short_or_worker_by_worker() -> None:
    held = problem(offer="nodes: [8, 8]", request="workers: 1, running: {on: a, move_cost: 5}").asks[0].running
    assert held == Running(held=(Held(group="a"),), move_micros=5_000_000)
    both = problem(
        offer="nodes: [8, 8]",
        request="workers: 3, same_node: true, running: {on: [{offer: a, workers: 3, nodes: [0, 0, 1]}], end_cost: 9}",
    )
    assert both.asks[0].running == Running(held=(Held(group="a", workers=3, nodes=(0, 0, 1)),), end_micros=9_000_000)


def test_limits_say_whom_and_what_they_are_about() -> None:
    read_as = problem(
        offer="spot: true, region: eu",
        offers="id: b, cluster: y, price: 1, count: 4, lender: l, region: eu|id: c, cluster: y, price: 1, count: 4",
        requests="id: s, tenant: u, devices: 1, duration: 1h, budgets: m",
        rest="budgets: [{id: m, remaining: 5, tenants: t, from: 1h, until: 2h}]\n"
        "quotas: [{id: q, devices: 3, only: {spot: true}, tenants: [t, u]}, {id: w, devices: 1, only: {region: eu, "
        "cluster: [x, y]}}, {id: v, devices: 0, only: {lender: l}}]\n"
        "shared: [{id: keep, limit: 6, offers: [a, b]}, {id: carved, limit: 7, offers: {a: 1, b: 7}}]\n"
        "shares: [{tenant: t, guaranteed: 4, weight: 2, history: 1.5}]",
    )
    budget = read_as.budgets[0]
    assert (budget.remaining_micros, budget.from_s, budget.until_s) == (5_000_000, HOUR, 2 * HOUR)
    assert [quota.groups for quota in read_as.quotas] == [{"a"}, {"a", "b"}, {"b"}]
    assert [ask.budgets for ask in read_as.asks] == [("m",), ("m",)]
    assert [ask.quotas for ask in read_as.asks] == [("q",), ("q",)]
    assert [dict(row.members) for row in read_as.rows] == [{"a": 1, "b": 1}, {"a": 1, "b": 7}]
    share = read_as.shares[0]
    assert (share.guaranteed, share.weight, share.history_milli) == (4, 2, 1500)
    assert read_as.aim is Aim.PRIORITY


def test_a_key_without_a_value_is_as_if_it_were_left_out() -> None:
    assert problem(request="price_cap: null, deadline: ~") == problem()


@pytest.mark.parametrize(
    ("table", "costs"),
    [
        ("{default: 0.09}", {"us": 90_000_000}),
        ("{default: 0.09, eu: {us: 0.02}}", {"us": 20_000_000}),
        ("{eu: 0.05}", {"us": 50_000_000}),
        ("{eu: {default: 0.05, us: 0}}", {}),
        ("{default: {us: 0.01}}", {"us": 10_000_000}),
        ("{default: 0.09, eu: {eu: 0.001}}", {"eu": 1_000_000, "us": 90_000_000}),
        ('{default: "0.0000015"}', None),
    ],
)
def test_bringing_data_costs_what_the_table_says(table: str, costs: dict[str, int] | None) -> None:
    text = document(
        offer="region: eu",
        offers="id: b, cluster: y, price: 1, count: 4, region: us",
        request="data: {region: eu, gb: 1000}",
        rest=f"egress: {table}",
    )
    if costs is None:
        assert "finer than a millionth" in mistakes(text)[0]
    else:
        assert understand(text).asks[0].transfer_micros == costs


# -- what is wrong, in a sentence -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it must hold a mapping with `offers:` and `requests:`"),
        ("- 1", "it must hold a mapping with `offers:` and `requests:`"),
        ("offers: []\nrequests: 3", "offers, line 1: must not be empty"),
        ("offers: []\nrequests: 3", "requests, line 2: must be a list"),
        (document(offer="prize: 2"), "offers[0].prize (a), line 2: there is no such key here; did you mean 'price'?"),
        (document(request="zzz: 2"), "there is no such key here; there are id, tenant,"),
        (document(request="or: [{sped: 2}]"), "or[0].sped (r), line 4: there is no such key here; did you mean"),
        (document(request="wokers: 2, devices: 0"), "requests[0].devices (r), line 4: 0 must be at least 1"),
        (document(request="devices: 1000001"), "requests[0].devices (r), line 4: 1000001 must be at most 1000000"),
        (document(request="devices: 1000, workers: 1001"), "asks for 1001 × 1000 devices; the most is 1000000"),
        (document(request="devices: 2.5"), "2.5 is not a whole number"),
        (document(request="devices: true"), "True is not a whole number"),
        (document(request="duration: 3600"), "a bare number has no unit; write 3600 seconds as 3600s"),
        (document(request="duration: 0"), "lasts no time"),
        (document(request="duration: soon"), "'soon' is not a duration"),
        (document(request="deadline: .inf"), "a duration is finite; where there is to be no limit, leave the line out"),
        (document(request="not_before: 2h, start_by: 1h"), "its latest start, `start_by`, is before its earliest"),
        (document(request="not_before: 2h, deadline: 2h", rest="starts: [0, 2h]"), "`deadline` is not after"),
        (document(request="not_before: 2h"), "may start at 2h, which is none of the document's `starts`: 0s; add one"),
        (document(request="confidential: maybe"), "'maybe' must be 'none', 'prefer' or 'require'"),
        (document(request="spot: 3"), "must be true or false"),
        (document(request="budgets: moth", rest="budgets: [{id: month, remaining: 1}]"),
         "there is no budget 'moth'; did you mean 'month'?"),
        (document(request="quotas: q"), "there is no quota 'q'"),
        (document(request="avoid: b"), "there is no offer 'b'"),
        (document(request="tiers: [{offers: [b]}]"), "tiers[0].offers (r), line 4: there is no offer 'b'"),
        (document(request="regions: []"), "requests[0].regions (r), line 4: must not be empty"),
        (document(request="data: {region: eu, gb: 4}", offer="region: us"), "`egress` does not say"),
        (document(request="running: {on: b}"), "there is no offer 'b'"),
        (document(request="workers: 2, running: {on: [a, a]}"), "names offer 'a' twice; say once how many `workers`"),
        (document(rest="shares: [{tenant: t, history: 1001}]"), "its `history` is more than a thousand times"),
        (document(request="workers: 2, running: {on: a}"), "has 2 workers, but runs with 1"),
        (document(request="same_node: true, running: {on: a}"), "say with `nodes` on which node each worker is"),
        (document(request="running: {on: [{offer: a, nodes: [0]}]}"), "names a node that offer 'a' does not have"),
        (document(requests="id: r, tenant: t, devices: 1, duration: 1h"),
         "requests[1].id (r), line 5: 'r' is there already (at requests[0]); each has its own id"),
        (document(offers="id: a, cluster: y, price: 1, count: 1"), "offers[1].id (a), line 3: 'a' is there already"),
        (document(offer="price: -1"), "offers[0].price (a), line 2: '-1': an amount of money is zero or more"),
        (document(offer="price: 10001"), "10001.00 per device-hour is too much; the most is 10000.00"),
        (document(offer="price: $2"), "'$2' is not an amount of money; write it like 2.40"),
        (document(offer="price: 0.0000001"), "finer than a millionth of a dollar"),
        (document(offer="count: 0"), "offers nothing; leave it out, or say with `later`"),
        (document(offer="count: 1000001"), "1000001 must be at most 1000000"),
        (document(offer="count: 500000, unit: 8"), "has 500000 × 8 devices; the most is 1000000"),
        (document(offer="count: null"), "says neither `count` nor `nodes`"),
        (document(offer="count: 9, nodes: [4, 4]"), "its count is 9, but its nodes have only 8 units"),
        (document(offer="nodes: {8: x}"), "write [8, 8, 4], or {8: 12} for twelve nodes"),
        (document(offer="nodes: {1: 99999999}"), "there are more than 1000000 nodes"),
        (document(offer="uninterrupted: 1h"), "says `uninterrupted`, but not `spot: true`"),
        (document(offer="min_duration: 2h, max_duration: 1h"), "its longest duration, 1h, is below its shortest, 2h"),
        (document(offer="later: [{in: 1h, units: -9}]"), "takes more than the offer has: -1 units would be left"),
        (document(offer="nodes: [8], later: [{in: 1h, units: 1}]"), "names no node of the offer; write `node:`"),
        (document(offer="later: [{in: 0, units: 1}]"), "a later change is not now"),
        (document(offer="price: 1, prices: [{from: 2h, price: 1}, {from: 1h, price: 1}]"), "prices are in the order"),
        (document(offer='id: "a\\e[31m"'), "a name has printable characters only"),
        (document(offer="id: ''"), "a name has 1 to 100 characters"),
        (document(rest="budgets: [{id: m, remaining: unlimited}]"),
         "budgets[0].remaining (m), line 5: an amount is finite; where there is to be no limit, leave the line out"),
        (document(rest="budgets: [{id: m, remaining: .inf}]"), "an amount is finite; where there is to be no limit"),
        (document(rest="budgets: [{id: m, remaining: 99999999999}]"), "is more than 1000000000; is the unit right?"),
        (document(rest="budgets: [{id: m, remaining: 1, from: 2h, until: 1h}]"), "ends before it begins"),
        (document(rest="budgets: [{id: m, remaining: 1, tenants: tt}]"), "there is no request of tenant 'tt'"),
        (document(rest="quotas: [{id: q, devices: 1, only: {spot: true}}]"), "no offer is like this"),
        (document(rest="shared: [{id: s, limit: 1, offers: [z]}]"), "there is no offer 'z'"),
        (document(rest="shares: [{tenant: t}, {tenant: t}]"), "shares[1].tenant (t), line 5: 't' is there already"),
        (document(rest="shares: [{tenant: t, history: -1}]"), "-1 is not between 0 and 1000000"),
        (document(rest="starts: [1h, 2h]"), "`starts` begins with 0 (now) and rises"),
        (document(rest="starts: [0, 2h, 2h]"), "`starts` begins with 0 (now) and rises"),
        (document(rest="aim: welfare"), "requests[0] (r), line 4: says no `value`, which every request needs"),
        (document(rest="aim: walfare"), "'walfare' must be 'priority' or 'welfare'; did you mean 'welfare'?"),
    ],
)  # fmt: skip
def test_every_mistake_is_told_with_its_place_and_what_to_write(text: str, says: str) -> None:
    lines = mistakes(text)
    assert any(says in line for line in lines), lines


def test_many_mistakes_are_told_as_the_first_twenty() -> None:
    rows = "\n".join(f"  - {{id: r{at}, tenant: t, devices: 0, duration: 1h}}" for at in range(50))
    lines = mistakes(f"offers: [{{id: a, cluster: x, price: 1, count: 1}}]\nrequests:\n{rows}")
    assert len(lines) == 21
    assert lines[-1] == "and 30 more"


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_bad_file_ends_with_exit_code_2_and_no_traceback(tmp_path, capsys) -> None:
    file = tmp_path / "problem.yaml"
    file.write_text(document(offer="price: -1"))
    assert run(["solve", str(file)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"lendmesh: {file} poses no problem that can be solved:\n"
        "  offers[0].price (a), line 2: '-1': an amount of money is zero or more, and finite\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a file, or - for standard input"),
        (["nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory"),
        (["."], "cannot be read: Is a directory"),
        (["-", "--time", "fast"], "--time: 'fast' is not a duration"),
        (["-", "--time", "0s"], "--time is more than nothing and less than a day"),
        (["-", "--time", "2d"], "--time is more than nothing and less than a day"),
        (["-", "--workers", "0"], "--workers is between 1 and 64"),
        (["-", "--seed", "-1"], "--seed is between 0 and"),
        (["-", "--plot", "out.png"], "--plot draws SVG and nothing else"),
        (["-", "--save", "no/such/folder/x.json"], "there is no folder no/such/folder"),
        (["-", "--why", "q"], "--why: there is no request 'q'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_in_one_line(arguments, says, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert run(["solve", *arguments]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("lendmesh: ")
    assert says in told.err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \x80"])
def test_what_is_no_text_is_refused(content: bytes, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run(["solve", "-"]) == 2
    assert "standard input is not UTF-8 text" in capsys.readouterr().err


def test_the_example_is_a_problem_and_uses_what_it_explains(capsys) -> None:
    assert run(["solve", "--example"]) == 0
    example = capsys.readouterr().out
    read_as = understand(example)
    assert read_as.aim is Aim.WELFARE
    assert len(read_as.groups) >= 3
    assert example.count("#") > 15
