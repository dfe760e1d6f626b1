"""Small problems with all that a problem may have, drawn some matters at a time: trying every plan stays short."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from hypothesis import strategies as st

from optimizer.problem import (
    Aim,
    Ask,
    Budget,
    CapacityRow,
    Confidential,
    Form,
    Group,
    Held,
    Later,
    Problem,
    Quota,
    Running,
    Share,
    Tier,
)
from tests.optimizing import DOLLAR, HOUR, ask, group
from tests.trying import plans

MATTERS = (
    "workers",
    "split",
    "forms",
    "starts",
    "later",
    "prices",
    "nodes",
    "running",
    "exposure",
    "money",
    "reclaims",
    "places",
    "shares",
    "welfare",
    "tiers",
    "units",
    "rows",
    "priority",
)

MOST = 5_000
"""Plans; where there are more, the last requests are left out."""


@st.composite
def whole_problems(draw: st.DrawFn, about: Set[str] = frozenset(), most_asks: int = 6, most_groups: int = 4) -> Problem:
    """A problem about these matters and a few others."""
    matters = about | draw(st.sets(st.sampled_from(MATTERS), min_size=3, max_size=8))
    starts = draw(st.sampled_from([(0, HOUR), (0, HOUR, 2 * HOUR)])) if "starts" in matters else (0,)
    many_groups, many_asks = draw(st.integers(2, most_groups)), draw(st.integers(2, most_asks))
    groups = tuple(_group(draw, at, matters, starts) for at in range(many_groups))
    asks = tuple(_ask(draw, at, matters, groups) for at in range(many_asks))
    ids = [each.id for each in groups]
    some = draw(st.sampled_from([frozenset(ids[:1]), frozenset(ids[1:])]))
    until = draw(st.sampled_from([None, None, HOUR, 2 * HOUR])) if "starts" in matters else None
    members = {name: draw(st.integers(0, 2)) for name in ids}
    shares = [
        Share(
            tenant=tenant,
            guaranteed=draw(st.integers(0, 6)),
            weight=draw(st.integers(1, 2)),
            history_milli=draw(st.sampled_from([0, 1000, 1700, 3000])),
        )
        for tenant in ("t", "u")
    ]
    problem = Problem(
        groups=groups,
        asks=asks,
        budgets=(
            Budget(id="all", remaining_micros=draw(st.integers(0, 40)) * DOLLAR),
            Budget(id="month", remaining_micros=draw(st.integers(0, 20)) * DOLLAR, until_s=until),
            Budget(id="next", remaining_micros=draw(st.integers(0, 20)) * DOLLAR, from_s=until or 0),
        ),
        quotas=(
            Quota(id="all", remaining_devices=draw(st.integers(0, 10)), until_s=until),
            Quota(id="some", remaining_devices=draw(st.integers(0, 6)), groups=some, from_s=until or 0),
        ),
        rows=(CapacityRow(id="kept", limit=draw(st.integers(0, 10)), members=members),) if "rows" in matters else (),
        shares=tuple(shares) if "shares" in matters else (),
        starts=starts,
        aim=Aim.WELFARE if "welfare" in matters else Aim.PRIORITY,
    )
    while plans(problem) > MOST:
        problem = replace(problem, asks=problem.asks[:-1])
    return problem


def _group(draw: st.DrawFn, at: int, matters: Set[str], starts: tuple[int, ...]) -> Group:
    nodes = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))) if "nodes" in matters else ()
    count = draw(st.integers(sum(nodes) // 2, sum(nodes))) if nodes else draw(st.integers(0, 8))
    terms: dict[str, object] = {"price_micros": draw(st.integers(0, 4)) * 777_777}
    if "units" in matters:
        terms["unit"] = draw(st.sampled_from([1, 1, 2, 4]))
    if "places" in matters:
        terms["cluster"] = f"c{draw(st.integers(0, 2))}"
        terms["region"] = draw(st.sampled_from(["eu", "us"]))
        terms["jurisdiction"] = draw(st.sampled_from(["", "EU", "US"]))
        terms["confidential"] = draw(st.booleans())
        terms["max_duration_s"] = draw(st.sampled_from([1800, 100_000]))
    if matters & {"reclaims", "exposure"}:
        spot = draw(st.booleans())
        terms["uninterrupted_s"] = draw(st.sampled_from([0, 1800, HOUR])) if spot else None
        terms["reclaims"] = draw(st.integers(1, 3)) * 33_333 if spot else 0
    if "prices" in matters and draw(st.booleans()):
        terms["prices"] = ((draw(st.sampled_from([1800, HOUR, 7000])), draw(st.integers(0, 4)) * 555_555),)
    made = group(f"g{at}", count, per_node=nodes, **terms)
    if "later" not in matters:
        return made
    # With one start, nodes are named for the whole of a lease; where some nodes fill as others empty, the group would
    # seem to have what no nodes have.
    return replace(made, later=_later(draw, made, falling=bool(nodes) and len(starts) == 1))


def _later(draw: st.DrawFn, made: Group, *, falling: bool) -> tuple[Later, ...]:
    changes: list[Later] = []
    free, nodes = made.count, list(made.per_node)
    for at_s in sorted(draw(st.sets(st.sampled_from([1800, HOUR, 5000, 2 * HOUR]), max_size=2))):
        node = draw(st.integers(0, len(nodes) - 1)) if nodes else None
        least = -min(free, nodes[node] if node is not None else free)
        units = draw(st.integers(least, 0 if falling else 4))
        free += units
        if node is not None:
            nodes[node] += units
        changes.append(Later(at_s=at_s, units=units, node=node))
    return tuple(changes)


def _ask(draw: st.DrawFn, at: int, matters: Set[str], groups: tuple[Group, ...]) -> Ask:
    ids = [each.id for each in groups]
    wishes: dict[str, object] = {
        "tenant": draw(st.sampled_from(["t", "u"])),
        "duration_s": draw(st.sampled_from([1000, HOUR, 5400, 2 * HOUR])),
        "created": draw(st.integers(0, 2)),
        "price_cap_micros": draw(st.sampled_from([None, None, None, 1_600_000])),
    }
    if "workers" in matters or "split" in matters:
        wishes["workers"] = draw(st.sampled_from([2, 3, 1]))
    if "split" in matters:
        wishes["split"] = draw(st.sampled_from([2, 3, 1]))
    if "nodes" in matters:
        wishes["same_node"] = draw(st.booleans())
    if "priority" in matters:
        wishes["priority"] = draw(st.integers(0, 1))
        wishes["weight"] = draw(st.sampled_from([None, None, 3]))
    if "welfare" in matters:
        wishes["value_micros"] = draw(st.integers(0, 20)) * 700_001
    if "money" in matters:
        wishes["budgets"] = draw(st.sampled_from([(), ("all",), ("month", "next")]))
        wishes["total_cap_micros"] = draw(st.sampled_from([None, None, 5_000_000]))
        wishes["transfer_micros"] = draw(st.sampled_from([{}, {"eu": 300_000, "us": 500_000}]))
    if "exposure" in matters:
        wishes["quotas"] = draw(st.sampled_from([(), ("all",), ("some",), ("all", "some")]))
    if "reclaims" in matters:
        wishes["restart_micros"] = draw(st.sampled_from([0, 5_000_000]))
        wishes["uninterrupted"] = draw(st.booleans())
    if "places" in matters:
        wishes["cluster"] = draw(st.sampled_from(["home", "c0"]))
        wishes["regions"] = draw(st.sampled_from([None, None, frozenset({"eu"})]))
        wishes["jurisdictions"] = draw(st.sampled_from([None, None, frozenset({"EU"})]))
        wishes["confidential"] = draw(st.sampled_from(list(Confidential)))
    if "tiers" in matters:
        near = Tier(groups=frozenset(ids[-1:]), price_cap_micros=2_400_000)
        wishes["tiers"] = draw(st.sampled_from([(), (near, Tier(name="far")), (near,)]))
    if "forms" in matters:
        wishes["matched"] = draw(st.sampled_from([frozenset(ids[:1]), frozenset(ids[1:]), frozenset(), None]))
        wishes["forms"] = draw(st.lists(_forms(ids), min_size=1, max_size=2).map(tuple))
    if "starts" in matters:
        wishes["not_before_s"] = draw(st.sampled_from([0, 0, 1800, HOUR]))
        wishes["start_by_s"] = draw(st.sampled_from([None, HOUR, HOUR, 2 * HOUR]))
        wishes["end_by_s"] = draw(st.sampled_from([None, None, 2 * HOUR, 9000]))
        wishes["delay_micros"] = draw(st.sampled_from([0, 0, 400_000]))
    made = ask(f"a{at}", draw(st.integers(1, 2 if "workers" in wishes else 4)), **wishes)
    return _runs(draw, made, groups) if "running" in matters and draw(st.booleans()) else made


def _forms(ids: list[str]) -> st.SearchStrategy[Form]:
    return st.builds(
        Form,
        matched=st.sampled_from([None, frozenset(ids[:1]), frozenset(ids[1:])]),
        devices=st.integers(1, 4),
        workers=st.integers(1, 2),
        speed_milli=st.sampled_from([500, 1000, 1700]),
    )


def _runs(draw: st.DrawFn, made: Ask, groups: tuple[Group, ...]) -> Ask:
    """The same as a lease that runs, in one or two groups; what it holds may be more than its group still has."""
    able = [each for each in groups if each.per_node or not made.same_node]
    if not able:
        return made
    places = draw(st.permutations(able))
    first = draw(st.integers(1, made.workers)) if made.split > 1 and len(places) > 1 else made.workers
    held = [Held(group=places[0].id, workers=first, nodes=_on(draw, made, places[0], first))]
    if first < made.workers:
        rest = made.workers - first
        held.append(Held(group=places[1].id, workers=rest, nodes=_on(draw, made, places[1], rest)))
    cost = st.sampled_from([None, 0, 300_000, 3_000_000])
    running = Running(held=tuple(held), move_micros=draw(cost), end_micros=draw(cost))
    return replace(made, running=running, not_before_s=0)


def _on(draw: st.DrawFn, made: Ask, where: Group, workers: int) -> tuple[int, ...]:
    if not made.same_node:
        return ()
    return tuple(draw(st.integers(0, len(where.per_node) - 1)) for _ in range(workers))
