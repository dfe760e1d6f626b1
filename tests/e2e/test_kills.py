"""Killed at any point and started again, an agent finishes the job; so does the broker."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import OpenWorld
from tests.e2e.looks import claims_of, holds, in_claims, left_behind
from tests.e2e.world import World, eventually

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(900)]
FOUR = ("--cluster", "a", "--count", "4", "--duration", "1h", "--price-cap", "3.00")


def settled(world: World, request: str) -> str:
    """The lease of a request, once both clusters hold it."""
    view = eventually(
        lambda: (view := world.request_now(request))["step"] == "mirrored" and view,
        what=f"{request} active and mirrored", within=90,
    )  # fmt: skip
    return str(view["lease"])


def assert_held_once(world: World, lease: str) -> None:
    """Exactly the leased devices, in one claim each."""
    b = world.clusters["b"]
    leased = {f"{one['driver']}/{one['pool']}/{one['name']}" for one in world.lease(lease)["devices"]}
    assert set().union(*map(holds, claims_of(b, lease))) == leased
    assert len(in_claims(b)) == len(set(in_claims(b)))


def test_agents_and_broker_killed_again_and_again_lose_nothing(open_world: OpenWorld) -> None:
    """Each is killed at another moment of a loan, and of its return; every loan is made, and leaves nothing behind."""
    with open_world() as world:
        eventually(lambda: world.offered_count() == 14, what="14 devices on offer")
        for number, victim in enumerate(("b", "a", "broker", "b", "a", "b", "broker", "b")):
            moment = 0.02 + 0.06 * number
            asked = world.cli("request", *FOUR, "--wait", "60s", "--no-follow").strip()
            time.sleep(moment)  # the moment is the point of this test, not a wait for something
            kill_and_start(world, victim)
            lease = settled(world, asked)
            assert_held_once(world, lease)

            world.cli("lease", "return", lease)
            time.sleep(moment)
            kill_and_start(world, victim)
            eventually(lambda lease=lease: world.lease(lease)["state"] == "Ended", what=f"{lease} ended", within=90)
            for cluster in world.clusters.values():
                eventually(
                    lambda cluster=cluster, lease=lease: not left_behind(cluster, lease),
                    what=f"nothing of {lease} left in {cluster.name}", within=60,
                )  # fmt: skip
            eventually(lambda: world.offered_count() == 14, what="all devices on offer again")


def kill_and_start(world: World, victim: str) -> None:
    if victim == "broker":
        world.kill_broker()
        world.start_broker()
    else:
        world.kill_agent(victim)
        world.start_agent(victim)
