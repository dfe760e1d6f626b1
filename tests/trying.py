"""The best plan of a tiny problem, found by trying all: what the solver's answers are compared with.

Written from the words of the model and nothing of the solver's code. Every goal is a sum over the requests of what one
option (or none) adds, so a branch is given up when even the best option of each request that is left, goal by goal,
could not pass the best plan so far; limits only fill up, so one is also given up when it passes a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations, product
from math import prod

from optimizer.check import overdrawn, violations, wrong
from optimizer.problem import MAX_DURATION, Aim, Ask, Confidential, Group, Problem
from optimizer.solution import Placement
from optimizer.suits import form_at, form_of, units_of
from tests.optimizing import Nodes, spread, stays

Score = tuple[int, ...]
"""Goals in order, each the larger the better."""


def best(problem: Problem) -> Score:
    """The goals of the best of all plans."""
    return best_plan(problem)[0]


def best_plan(problem: Problem) -> tuple[Score, dict[str, Placement]]:
    """The best of all plans, and its goals; of several equally good ones any."""
    choices = {ask.id: [*options(problem, ask)] for ask in problem.asks}
    covered = entitled(problem, choices)
    tried: list[tuple[Ask, list[tuple[Score, Placement | None]]]] = []
    for ask in problem.asks:
        pool: list[Placement | None] = [*choices[ask.id], *([] if _pinned(ask) else [None])]
        rated = sorted(((adds(problem, covered, ask, each), each) for each in pool), key=lambda pair: pair[0])
        tried.append((ask, rated[::-1]))
    hopes = [_zero(problem)]
    for _, rated in reversed(tried):
        top = tuple(max(column) for column in zip(*(score for score, _ in rated), strict=True))
        hopes.append(_plus(hopes[-1], top))
    hopes.reverse()
    found: list[tuple[Score, dict[str, Placement]]] = []

    def step(at: int, score: Score, plan: dict[str, Placement]) -> None:
        if found and _plus(score, hopes[at]) <= found[-1][0]:
            return
        if at == len(tried):
            full = named(problem, plan)
            if full is not None and not violations(problem, full):
                found.append((score, full))
            return
        ask, rated = tried[at]
        for gain, option in rated:
            if option is None:
                step(at + 1, _plus(score, gain), plan)
            elif not overdrawn(problem, fuller := {**plan, ask.id: option}):
                step(at + 1, _plus(score, gain), fuller)

    step(0, _zero(problem), {})
    assert found, "leaving alone what runs, and everything else out, is always a plan"
    return found[-1]


def plans(problem: Problem) -> int:
    """How many plans there are at most."""
    return prod(1 + sum(1 for _ in options(problem, ask)) for ask in problem.asks)


def reached(problem: Problem, placements: Mapping[str, Placement]) -> Score:
    """The goals of a plan."""
    covered = entitled(problem, {ask.id: [*options(problem, ask)] for ask in problem.asks})
    score = _zero(problem)
    for ask in problem.asks:
        score = _plus(score, adds(problem, covered, ask, placements.get(ask.id)))
    return score


def options(problem: Problem, ask: Ask) -> Iterator[Placement]:
    """Every way to place a request that is possible where it is alone; nodes only where they matter for it."""
    groups = problem.groups
    if ask.running is not None and not overdrawn(problem, {ask.id: stays(ask, problem)}):
        kept = stays(ask, problem)
        # A lease that may be ended does not go on at a loss; one that must not be ended goes on whatever it is worth.
        if _pinned(ask) or problem.aim is not Aim.WELFARE or _gain(problem, ask, kept) >= 0:
            yield kept
    if ask.running is not None and ask.running.move_micros is None:
        return
    for start in (0,) if ask.running is not None else problem.starts:
        for many in range(1, ask.split + 1):
            for chosen in combinations(groups, many):
                ranks = {form_of(ask, group.id) for group in chosen}
                if len(ranks) > 1 or None in ranks:
                    continue
                form = form_at(ask, ranks.pop() or 0)
                for workers in _ways(form.workers, many):
                    if ask.running is not None and _held(ask) == Counter(
                        {group.id: count for group, count in zip(chosen, workers, strict=True)}
                    ):
                        continue  # other nodes of the same groups are no move
                    seats = [
                        _seats(ask, group, units_of(form, group), count)
                        for group, count in zip(chosen, workers, strict=True)
                    ]
                    for nodes in product(*seats):
                        places = tuple(zip(chosen, workers, nodes, strict=True))
                        option = spread(ask, *places, start_s=start, moved=ask.running is not None)
                        if possible_alone(problem, ask, option):
                            yield option


def possible_alone(problem: Problem, ask: Ask, option: Placement) -> bool:
    """Whether an option keeps all rules beside nothing else."""
    full = named(problem, {ask.id: option})
    return full is not None and not wrong(problem, ask, full[ask.id]) and not overdrawn(problem, full)


def adds(problem: Problem, covered: frozenset[str], ask: Ask, placed: Placement | None) -> Score:
    """What an option of a request (None: it is not placed) adds to each goal."""
    devices = ask.total if placed is not None else 0
    first = (devices * _pinned(ask), devices * (ask.id in covered))
    if problem.aim is Aim.WELFARE:
        return (*first, _gain(problem, ask, placed))
    goals: list[int] = []
    for level in sorted({each.priority for each in problem.asks}, reverse=True):
        turns = sorted({each.created for each in problem.asks if each.priority == level})
        counts = ask.counts_for if placed is not None and ask.priority == level else 0
        goals += [counts, counts * (len(turns) - turns.index(ask.created)) if counts else 0]
    if placed is None:
        ended = ask.running.end_micros or 0 if ask.running is not None else 0
        return (*first, *goals, -ended, 0, 0, 0, 0)
    groups = {group.id: group for group in problem.groups}
    plain = any(not groups[part.group].confidential for part in placed.parts)
    over = sum(max(0, _free(problem, groups[part.group], placed) - part.units) for part in placed.parts)
    return (
        *first,
        *goals,
        0,
        -placed.tier,
        -(plain and ask.confidential is Confidential.PREFER),
        -(placed.cost_micros + placed.loss_micros),
        -over,
    )


def entitled(problem: Problem, choices: Mapping[str, list[Placement]]) -> frozenset[str]:
    """Requests that the guarantees cover: what must not end, what runs, what waits; each by priority and turn.

    What does not fit is passed over, and what must not end uses up the guarantee all the same. Every tenant fills its
    own guarantee, so the order among tenants changes nothing.
    """
    covered: set[str] = set()
    for share in problem.shares:
        left = share.guaranteed
        mine = [ask for ask in problem.asks if ask.tenant == share.tenant]
        for ask in sorted(mine, key=lambda each: (not _pinned(each), each.running is None, *_turn(each))):
            if ask.total <= left and (_pinned(ask) or choices[ask.id]):
                covered.add(ask.id)
                left -= ask.total
            elif _pinned(ask):
                left -= ask.total
    return frozenset(covered)


def named(problem: Problem, plan: Mapping[str, Placement]) -> dict[str, Placement] | None:
    """The plan with nodes for those requests that may take any; None where the nodes have no room for all of them."""
    if len(problem.starts) > 1:
        return dict(plan)
    free = {
        (group.id, node): group.node_within(node, 0, 2 * MAX_DURATION)
        for group in problem.groups
        for node in range(len(group.per_node))
    }
    pinned = [stays(ask, problem) for ask in problem.asks if _pinned(ask)]
    there: Counter[tuple[str, int]] = Counter()
    for placed in pinned:
        for part in placed.parts:
            there.update({(part.group, node): units for node, units in part.nodes})
    free = {where: max(units, there[where]) for where, units in free.items()}
    for placed in plan.values():
        for part in placed.parts:
            for node, units in part.nodes:
                free[part.group, node] -= units
    asks = {ask.id: ask for ask in problem.asks}
    nodes = {group.id: range(len(group.per_node)) for group in problem.groups}
    full = {}
    for name, placed in plan.items():
        parts = []
        for part in placed.parts:
            takes, missing = [], part.units
            # What runs somewhere on nodes that nobody named goes on there: it takes no place away from them.
            unknown = asks[name].running is not None and not placed.moved
            if nodes[part.group] and not part.nodes and not unknown:
                for node in nodes[part.group]:
                    if (take := min(missing, max(0, free[part.group, node]))) > 0:
                        takes.append((node, take))
                        free[part.group, node] -= take
                        missing -= take
                if missing:
                    return None
                part = replace(part, nodes=tuple(takes))
            parts.append(part)
        full[name] = replace(placed, parts=tuple(parts))
    return full


def _pinned(ask: Ask) -> bool:
    return ask.running is not None and ask.running.end_micros is None


def _held(ask: Ask) -> Counter[str]:
    held: Counter[str] = Counter()
    for part in ask.running.held if ask.running is not None else ():
        held[part.group] += part.workers
    return held


def _turn(ask: Ask) -> tuple[int, int, str]:
    return -ask.priority, ask.created, ask.id


def _gain(problem: Problem, ask: Ask, placed: Placement | None) -> int:
    if placed is None:
        return 0
    profit = (ask.value_micros or 0) - placed.cost_micros - placed.loss_micros
    if ask.running is not None:
        profit += ask.running.end_micros or 0
    history = max((1000, *(share.history_milli for share in problem.shares if share.tenant == ask.tenant)))
    return profit * 1000 // history


def _free(problem: Problem, group: Group, placed: Placement) -> int:
    """The least that the group has while it is there, before the plan."""
    ends = (*problem.starts[1:], 2 * MAX_DURATION)
    return min(
        group.free_within(start, end)
        for start, end in zip(problem.starts, ends, strict=True)
        if placed.start_s < end and start < placed.start_s + placed.duration_s
    )


def _seats(ask: Ask, group: Group, each: int, workers: int) -> list[Nodes]:
    """Every way to put so many workers, of so many units each, on nodes; one empty way where nodes do not matter."""
    if not ask.same_node:
        return [()]
    ways = (way for way in product(range(workers + 1), repeat=len(group.per_node)) if sum(way) == workers)
    return [tuple((node, each * count) for node, count in enumerate(way) if count) for way in ways]


def _ways(workers: int, groups: int) -> Iterator[tuple[int, ...]]:
    """Every way to deal so many workers to so many groups, one at least to each."""
    if groups == 1:
        yield (workers,)
        return
    for first in range(1, workers - groups + 2):
        for rest in _ways(workers - first, groups - 1):
            yield first, *rest


def _zero(problem: Problem) -> Score:
    return (0,) * (3 if problem.aim is Aim.WELFARE else 7 + 2 * len({ask.priority for ask in problem.asks}))


def _plus(one: Score, other: Score) -> Score:
    return tuple(a + b for a, b in zip(one, other, strict=True))
