"""A federation to measure on: real prices, real gang sizes and durations, real egress prices; invented demand.

Offers are (cloud, region, device, on demand or spot) from the price rows, with log-normal capacities in whole nodes of
eight. Requests take their size and duration from the Philly trace, one in ten becomes a gang of 16–128; half name a
part of the world, one in twenty-five must be confidential, half accept spot, some have data to move. Values are
log-normal around what a request would pay at its own median offer: invented, and said to be. Budgets and quotas, where
on, hold three tenths of the value and two thirds of the devices that each tenant asks for.
"""

from __future__ import annotations

import csv
import gzip
import random
import statistics
from dataclasses import replace
from pathlib import Path

from optimizer.filter import judge
from optimizer.market import Market
from optimizer.problem import Aim, Ask, Budget, Confidential, Group, Problem, Quota

DATA = Path(__file__).parents[3] / "shared" / "data"
TENANTS = 25
MEMORY = {
    "A16": 16, "A4000": 16, "P100": 16, "V100": 16, "A10": 24, "L4": 24, "A5000": 24, "V100-32GB": 32, "A100": 40,
    "A6000": 48, "L40": 48, "L40S": 48, "RTX6000-Ada": 48, "A100-80GB": 80, "H100": 80, "RTXPRO6000": 96, "H200": 141,
    "B200": 180, "GB200": 186, "MI300X": 192, "B300": 288, "GB300": 288, "MI355X": 288,
}  # fmt: skip
"""GiB of each device, from the makers' data sheets."""
WANTED = (0, 0, 24, 40, 48, 80, 80, 141)


def missing() -> str | None:
    """What is not there, in a sentence; None where the data is complete."""
    for name in ("prices/cloud_gpu_prices_2026.csv", "traces/philly_jobs_first70pct.csv.gz"):
        if not (DATA / name).exists():
            return f"the measured data is absent: {name} is not under {DATA}"
    return None


def federation(
    *, asks: int, groups: int, load: float = 1.25, budgets: bool = True, seed: int = 0, in_a_row: bool = False
) -> Problem:
    """One instance; the same arguments give the same instance.

    `in_a_row`: the trace's jobs one after another as they came, from a random one on, instead of picked at random.
    """
    rng = random.Random(f"{asks} {groups} {load} {budgets} {seed}")
    offers = _offers(rng, groups)
    wanted, durations = _sizes(rng, asks, in_a_row)
    scale = sum(wanted) / load / sum(group.count for group, _ in offers)
    sized = tuple(
        replace(group, count=nodes * 8, per_node=(8,) * nodes)
        for group, _ in offers
        if (nodes := max(1, round(group.count * scale / 8)))
    )
    spot = {group.id for group, is_spot in offers if is_spot}
    egress = _egress()
    matched = _matched(sized, spot)
    requests = [_ask(rng, at, wanted[at], durations[at], sized, matched, egress) for at in range(asks)]
    valued = _valued(rng, requests, sized)
    return _limited(Problem(groups=sized, asks=valued, aim=Aim.WELFARE), budgets)


def _offers(rng: random.Random, most: int) -> list[tuple[Group, bool]]:
    with (DATA / "prices/cloud_gpu_prices_2026.csv").open() as rows:
        seen: dict[tuple[str, str, str, bool], list[float]] = {}
        for row in csv.DictReader(rows):
            for column, is_spot in (("on_demand_usd_h", False), ("spot_usd_h", True)):
                if row[column] and float(row[column]) > 0 and float(row["acc_count"]) >= 1:
                    key = (row["cloud"], row["region"], row["accelerator"], is_spot)
                    seen.setdefault(key, []).append(float(row[column]) / float(row["acc_count"]))
    keys = sorted(seen)
    rng.shuffle(keys)
    offers = []
    for at in range(most):
        cloud, region, device, is_spot = keys[at % len(keys)]
        price = statistics.median(seen[keys[at % len(keys)]])
        jitter = 1.0 if at < len(keys) else rng.uniform(0.85, 1.15)
        offers.append(
            (
                Group(
                    id=f"{cloud}/{region}/{device}/{'spot' if is_spot else 'od'}/{at // len(keys)}",
                    cluster=f"{cloud}/{region}/{at // len(keys)}",
                    kind=device,
                    price_micros=round(price * jitter * 1_000_000),
                    count=max(8, round(8 * rng.lognormvariate(2.0, 1.0))),
                    region=f"{cloud}:{region}",
                    provider=cloud,
                    confidential=device in ("H100", "H200", "B200") and rng.random() < 0.3,
                ),
                is_spot,
            )
        )
    return offers


def _sizes(rng: random.Random, count: int, in_a_row: bool) -> tuple[list[int], list[int]]:
    with gzip.open(DATA / "traces/philly_jobs_first70pct.csv.gz", "rt") as rows:
        read = [row for row in csv.DictReader(rows) if int(row["num_gpus"]) > 0 and float(row["duration"]) >= 600]
    if in_a_row:
        read.sort(key=lambda row: row["timestamp"])
    jobs = [(int(row["num_gpus"]), int(float(row["duration"]))) for row in read]
    first = rng.randrange(len(jobs)) if in_a_row else 0
    picked = [jobs[(first + at) % len(jobs)] if in_a_row else rng.choice(jobs) for at in range(count)]
    sizes = [rng.choice((16, 32, 64, 128)) if rng.random() < 0.1 else min(128, size) for size, _ in picked]
    return sizes, [min(2 * 86_400, seconds) for _, seconds in picked]


def _egress() -> dict[str, dict[str, float]]:
    path = DATA / "network/cost_egress_grid.csv.gz"
    table: dict[str, dict[str, float]] = {}
    if path.exists():
        with gzip.open(path, "rt") as rows:
            for row in csv.DictReader(rows):
                table.setdefault(row["src"], {})[row["dest"]] = float(row["cost"])
    return table


def _ask(
    rng: random.Random,
    at: int,
    devices: int,
    seconds: int,
    groups: tuple[Group, ...],
    matched: dict[tuple[int, bool], frozenset[str]],
    egress: dict[str, dict[str, float]],
) -> Ask:
    memory, takes_spot = rng.choice(WANTED), rng.random() < 0.5
    regions = sorted({group.region for group in groups})
    allowed = frozenset(rng.sample(regions, max(1, len(regions) // 3))) if rng.random() < 0.5 else None
    transfer: dict[str, int] = {}
    if egress and rng.random() < 0.3:
        home, gigabytes = rng.choice(sorted(egress)), rng.lognormvariate(4, 1.5)
        known = egress[home]
        dearest = max(known.values())
        transfer = {each: round(known.get(each, dearest) * gigabytes * 1_000_000) for each in regions if each != home}
    return Ask(
        id=f"r{at:05}",
        tenant=f"t{rng.randrange(TENANTS)}",
        devices=devices,
        duration_s=seconds,
        matched=matched[memory, takes_spot],
        regions=allowed,
        transfer_micros=transfer,
        confidential=Confidential.REQUIRE if rng.random() < 0.04 else Confidential.NONE,
        created=at,
        priority=rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 2)),
        value_micros=0,
    )


def _matched(groups: tuple[Group, ...], spot: set[str]) -> dict[tuple[int, bool], frozenset[str]]:
    """(least memory, takes spot) → the groups that would do; one set for all requests that want the same."""
    return {
        (memory, takes_spot): frozenset(
            group.id for group in groups if MEMORY.get(group.kind, 0) >= memory and (takes_spot or group.id not in spot)
        )
        for memory in set(WANTED)
        for takes_spot in (False, True)
    }


def _valued(rng: random.Random, asks: list[Ask], groups: tuple[Group, ...]) -> tuple[Ask, ...]:
    market = Market(Problem(groups=groups, asks=()))
    valued = []
    for low in range(0, len(asks), 500):
        part = asks[low : low + 500]
        seen = judge(market, part)
        for row, ask in enumerate(part):
            costs = seen.cost[row][seen.why[row] == 0]
            median = int(sorted(costs.tolist())[len(costs) // 2]) if len(costs) else 0
            urgency = 1 + 0.25 * ask.priority
            valued.append(
                replace(ask, value_micros=min(10**14, round(median * urgency * rng.lognormvariate(0.3, 0.5))))
            )
    return tuple(valued)


def _limited(problem: Problem, on: bool) -> Problem:
    if not on:
        return problem
    wealth = {f"t{at}": 0 for at in range(TENANTS)}
    devices = dict.fromkeys(wealth, 0)
    for ask in problem.asks:
        wealth[ask.tenant] += ask.value_micros or 0
        devices[ask.tenant] += ask.devices
    return replace(
        problem,
        asks=tuple(replace(ask, budgets=(ask.tenant,), quotas=(ask.tenant,)) for ask in problem.asks),
        budgets=tuple(Budget(id=name, remaining_micros=whole * 3 // 10) for name, whole in wealth.items()),
        quotas=tuple(Quota(id=name, remaining_devices=max(8, whole * 2 // 3)) for name, whole in devices.items()),
    )
