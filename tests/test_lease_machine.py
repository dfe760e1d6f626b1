"""The broker beside a small model of it: whatever happens in whatever order, both say the same.

The model knows devices, leases and time, and nothing of databases, requests or messages. Hypothesis drives the real
broker (SQLite, real signatures) and the model with the same events; after each, states, free devices and fences must
agree, and the promises must hold: no device in two live leases (P1), none free again without a lender's word or the
end of quarantine (P2), active only after a prepare under the very fence (P26), fences that only rise (P15).
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from broker.domain.errors import Refusal
from broker.domain.lease import LIVE, Lease, State
from broker.domain.rules import Rules
from broker.store.unit import Unit
from broker.wire.agents import LeaseReport
from broker.wire.leases import Renewal
from tests.world import Agent, World, devices, offer, wish, world

RULES = Rules()
DURATION_S, MAXIMUM_S = 600, 900
AWAY = timedelta(seconds=2 * 5 + 30 + 15)


@dataclass
class Model:
    """One lease as the model has it."""

    refs: frozenset[str]
    fence: int
    state: str = "Reserved"
    hold_until: datetime | None = None
    began: datetime | None = None
    expires: datetime | None = None
    ending: bool = False
    """Its end has begun, whatever state it is in by now."""

    @property
    def live(self) -> bool:
        return self.state != "Ended"

    @property
    def unclean(self) -> datetime:
        end = self.expires or self.hold_until
        assert end is not None
        return end + AWAY


class Lending(RuleBasedStateMachine):
    """One lender with 8 devices in 2 nodes, one borrower, and time."""

    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.home = tempfile.TemporaryDirectory()
        self.models: dict[str, Model] = {}
        self.highest = 0
        self.sequence_floor = 0
        self.run(self._begin())

    async def _begin(self) -> None:
        url = f"sqlite:///{Path(self.home.name)}/broker.db"
        self.here: World = await self.stack.enter_async_context(world(url, rules=RULES))
        self.lender: Agent = await self.here.agent("b")
        self.borrower: Agent = await self.here.agent("a")
        self.user = await self.here.user("team-a")
        self.landlord = await self.here.user("team-b")
        await self._advertise()

    async def _advertise(self) -> None:
        await self.lender.advertise(
            offer(devices("n1", "n2", each=4), max_duration=f"{MAXIMUM_S}s", minimum_runtime="0s", reclaim_notice="60s")
        )

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.stack.aclose())
            self.runner.close()
            self.home.cleanup()

    # --- what may happen ---------------------------------------------------------------------------------------------

    @rule(target=leases, count=st.integers(1, 5))
    def ask(self, count: int) -> Any:
        """Somebody asks; what fits is reserved, for this request or for one whose lease failed before."""
        free = 8 - sum(len(model.refs) for model in self.models.values() if model.live)
        willing = self.run(self.here.store.read(lambda unit: unit.clusters.find("b"))).lends(self.here.clock())
        asked = self.run(self.here.submitted(self.user, wish(count=count, duration=f"{DURATION_S}s", wait=None)))
        new = self.run(self.here.store.read(self.unknown))
        if asked.lease is None and willing and not new:
            assert free < count, "there was room, and nobody got it"
        for lease, refs in new:
            taken = {ref for model in self.models.values() if model.live for ref in model.refs}
            assert willing, "granted on the devices of a lender that may not lend"
            assert not refs & taken, "a device was granted that another live lease has"
            assert lease.fence > self.highest, "a fence did not rise"
            self.highest = lease.fence
            self.models[lease.id] = Model(refs, lease.fence, hold_until=self.here.clock() + RULES.hold)
        return multiple(*(lease.id for lease, _ in new))

    def unknown(self, unit: Unit) -> list[tuple[Lease, frozenset[str]]]:
        """Leases that the model hasn't met, in order of their fences."""
        page = unit.leases.page(tenant=None, cluster=None, state=None, before=None, limit=1_000)
        new = sorted((lease for lease in page if lease.id not in self.models), key=lambda lease: lease.fence)
        return [(lease, frozenset(unit.leases.refs(lease.id))) for lease in new]

    @rule(name=leases, off=st.sampled_from([0, 0, 0, -1, 1]))
    def hold(self, name: str, off: int) -> None:
        """The lender says that it holds the devices, sometimes under a wrong fence."""
        model = self.say(name, "held", off)
        if model is not None and not off:
            if model.state == "Reserved":
                model.state, model.began = "Active", self.here.clock()
                model.expires = self.here.clock().replace(microsecond=0) + timedelta(seconds=DURATION_S)
            elif model.state == "Orphaned":
                self.resume(model)

    @rule(name=leases)
    def lend(self, name: str) -> None:
        model = self.say(name, "lent", 0)
        if model is not None and model.state == "Orphaned":
            self.resume(model)

    @rule(
        name=leases, off=st.sampled_from([0, 0, 0, -1, 1]), phase=st.sampled_from(["released", "conflict", "refused"])
    )
    def nothing_held(self, name: str, off: int, phase: str) -> None:
        """The lender says that it holds nothing."""
        model = self.say(name, phase, off)
        if model is not None and not off:
            model.state = "Ended"

    @rule(name=leases)
    def give_back(self, name: str) -> None:
        model = self.models[name]
        self.run(self.here.broker.return_lease(self.user, name))
        if model.state in ("Reserved", "Active", "Orphaned"):
            model.state, model.ending = "Draining", True

    @rule(name=leases, seconds=st.integers(1, 2_000))
    def renew(self, name: str, seconds: int) -> None:
        model, now = self.models[name], self.here.clock()
        try:
            view = self.run(
                self.here.broker.renew(self.user, name, Renewal.model_validate({"duration": f"{seconds}s"}))
            )
        except Refusal:
            gains = model.expires is not None and now + timedelta(seconds=seconds) > model.expires + timedelta(
                seconds=1
            )
            latest = model.began is not None and model.expires == self.latest(model)
            assert model.state != "Active" or not gains or latest or now >= (model.expires or now)
            return
        assert model.state == "Active"
        assert model.expires is not None
        assert model.expires < view.expires_at <= self.latest(model)
        model.expires = view.expires_at

    @rule()
    def silence(self) -> None:
        """The lender isn't heard of until the broker notices."""
        self.pass_time(RULES.silence + timedelta(seconds=1))
        self.run(self.borrower.report())
        noticed = self.run(self.here.broker.find_silent())
        assert noticed in ([], ["b"])
        for model in self.models.values():
            if noticed and model.state in ("Active", "Draining"):
                model.state = "Orphaned"

    @rule()
    def speak(self) -> None:
        """The lender is heard of again, resynced, and offers everything it has."""
        self.run(self.lender.report(resync=True))
        self.run(self.borrower.report())
        self.run(self._advertise())
        for model in self.models.values():
            if model.state == "Quarantined":
                model.state = "Ended"

    @rule(seconds=st.sampled_from([1, 30, 61, 300, 700, 1_500]))
    def wait(self, seconds: int) -> None:
        self.pass_time(timedelta(seconds=seconds))

    @precondition(lambda self: bool(self.models))
    @rule(name=consumes(leases))
    def forget(self, name: str) -> None:
        """No more events about this one: keeps runs from circling around a few."""

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "here"):
            return
        rows = self.run(self.here.store.read(lambda unit: unit.leases.by_id(list(self.models))))
        assert {row.id: row.state.value for row in rows} == {name: model.state for name, model in self.models.items()}
        for row in rows:
            assert (row.token is not None) == (row.active_at is not None), "signed if and only if it was active"
        taken = self.run(self.here.store.read(lambda unit: unit.leases.live_refs()))
        expected = [ref for model in self.models.values() if model.live for ref in model.refs]
        assert len(expected) == len(set(expected)), "a device is in two live leases"
        assert taken == set(expected)
        for row in rows:
            assert (row.state in LIVE) == self.models[row.id].live

    # --- helpers -----------------------------------------------------------------------------------------------------

    def latest(self, model: Model) -> datetime:
        assert model.began is not None
        return model.began.replace(microsecond=0) + timedelta(seconds=MAXIMUM_S)

    def resume(self, model: Model) -> None:
        if model.ending or model.expires is None or self.here.clock() >= model.expires:
            model.state, model.ending = "Draining", True
        else:
            model.state = "Active"

    def say(self, name: str, phase: str, off: int) -> Model | None:
        model = self.models[name]
        fence = max(0, model.fence + off)
        line = LeaseReport(lease=name, role="lender", generation=1, phase=phase, fence=fence)  # type: ignore[arg-type]
        self.run(self.lender.report(line))
        return None if model.state == "Ended" else model

    def pass_time(self, by: timedelta) -> None:
        """From one thing that is due to the next, as the broker's own loop is woken."""
        until = self.here.clock() + by
        while True:
            dues = [due for model in self.models.values() if (due := self.due(model)) is not None and due <= until]
            self.here.clock.at = max(self.here.clock(), min(dues, default=until))
            self.run(self.here.broker.expire())
            for model in self.models.values():
                due = self.due(model)
                if due is not None and due <= self.here.clock():
                    model.state = "Quarantined" if model.state in ("Draining", "Orphaned") else "Draining"
                    model.ending = True
            if not dues and self.here.clock() >= until:
                return

    def due(self, model: Model) -> datetime | None:
        match model.state:
            case "Reserved":
                return model.hold_until
            case "Active":
                return model.expires
            case "Draining" | "Orphaned":
                return model.unclean
            case _:
                return None


assert {state.value for state in State} - {"Pending", "Prepared"} == {
    "Reserved",
    "Active",
    "Draining",
    "Orphaned",
    "Quarantined",
    "Ended",
}
Lending.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLending = Lending.TestCase
