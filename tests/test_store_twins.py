"""SQLite and PostgreSQL give the same answers: one random history, told twice, compared entry by entry."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from broker.domain.errors import Refusal
from broker.domain.rules import Rules
from broker.wire.leases import Reclaim, Renewal
from tests.world import ADMIN, Agent, World, devices, offer, wish, world

STEPS = 100
THINGS = ["ask", "ask", "ask", "held", "lent", "mirrored", "released", "conflict"]
THINGS += ["return", "renew", "reclaim", "wait", "speak", "cancel"]


async def history(url: str, seed: int) -> list[Any]:
    """What a broker logged, refused and showed while chance used it."""
    dice = random.Random(seed)
    told: list[Any] = []
    async with world(url, rules=Rules()) as here:
        lender, borrower = await here.agent("b"), await here.agent("a")
        user, landlord = await here.user("team-a"), await here.user("team-b")
        lent = offer(devices("n1", "n2", each=4), reclaim_notice="30s", minimum_runtime="0s", max_duration="20m")
        await lender.advertise(lent)
        told += [await step(here, dice, lender, borrower, user, landlord, lent) for _ in range(STEPS)]
        entries = await here.store.read(lambda unit: unit.log.after(0, most=10_000))
        told += [{**asdict(entry), "data": plain(entry.data)} for entry in entries]
        leases = (await here.broker.leases(ADMIN, limit=500)).items
        told += [view.model_dump(mode="json") for view in leases]
        told += [view.model_dump(mode="json") for view in (await here.broker.requests(ADMIN, limit=500)).items]
        told += [view.model_dump(mode="json") for view in (await here.broker.offers(ADMIN)).items]
        told += sorted(await here.store.read(lambda unit: unit.leases.live_refs()))
    return [without_time_of_solving(each) for each in told]


async def step(
    here: World, dice: random.Random, lender: Agent, borrower: Agent, user: Any, landlord: Any, lent: Any
) -> Any:
    """One random thing; what came of it."""
    leases = [view.id for view in (await here.broker.leases(ADMIN, limit=500)).items]
    one = dice.choice(leases) if leases else "lse-none"
    what = dice.choice(THINGS)
    count, seconds = dice.randint(1, 5), dice.choice([1, 20, 50, 200, 700])
    try:
        match what:
            case "ask":
                return (await here.submitted(user, wish(count=count, duration="10m"))).state
            case "held" | "lent" | "released" | "conflict":
                wanted = [each for each in await lender.desired() if each.id == one]
                return (await lender.say(what, one)).applied if wanted else "not wanted"
            case "mirrored":
                wanted = [each for each in await borrower.desired() if each.id == one]
                return (await borrower.say(what, one, role="borrower")).applied if wanted else "not wanted"
            case "return":
                return (await here.broker.return_lease(user, one)).state
            case "renew":
                more = Renewal.model_validate({"duration": f"{seconds * 3}s"})
                return (await here.broker.renew(user, one, more)).generation
            case "reclaim":
                return (await here.broker.reclaim(landlord, one, Reclaim())).state
            case "wait":
                here.clock.advance(seconds=seconds)
                silent = await here.broker.find_silent()
                return [str(await here.broker.expire()), silent, len((await here.broker.place()).placed)]
            case "speak":
                await borrower.report(resync=True)
                await lender.report(resync=True)
                return (await lender.advertise(lent)).message
            case _:
                open_ = (await here.broker.requests(user)).items
                return (await here.broker.cancel(user, dice.choice(open_).id)).state if open_ else None
    except Refusal as refusal:
        return [type(refusal).__name__, refusal.detail]


def plain(data: str) -> Any:
    return json.loads(data)


def without_time_of_solving(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_time_of_solving(each) for key, each in value.items() if key != "wall_ms"}
    if isinstance(value, list):
        return [without_time_of_solving(each) for each in value]
    return value


@pytest.mark.postgres
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_both_databases_tell_the_same_history(seed: int, tmp_path: Path, postgres_url: str) -> None:
    one = await history(f"sqlite:///{tmp_path}/broker.db", seed)
    other = await history(postgres_url, seed)
    assert one == other
    assert len(one) > 2 * STEPS, "nothing much happened"
