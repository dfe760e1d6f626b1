"""All leases of this cluster, each with a worker of its own that is woken by what concerns it.

A worker looks (at the shared cache and the broker's wish), plans, does, and looks again until there is nothing to do;
then it sleeps until something changes or a clock runs out. One lease's trouble is its own: its worker tries again, with
growing pauses, and the others don't notice. Leases that nobody wishes for any more are found by their objects, so an
agent that starts anew takes up whatever its predecessor left.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from broker.wire.agents import LeaseReport
from broker.wire.leases import DesiredLease
from clusteragent import borrow, expiry, holding, lend, lender, record
from clusteragent.act import Hands
from clusteragent.actions import Action, Plan, Say, key_of
from clusteragent.cache import Cache
from clusteragent.expiry import Now
from clusteragent.eyes import Eyes
from clusteragent.kube.interface import DEVICE_LEASES, NAMESPACES, PODS, RESOURCE_CLAIMS, Obj
from clusteragent.loops import Backoff, describe
from clusteragent.record import Role
from clusteragent.trust import Trust

Key = tuple[Role, str]
PREFIX = holding.namespace_of("")
STUCK_S = 0.25
"""An action that is planned again right after it was done waits so long: its effect is still on its way."""
MAKING = frozenset({"create", "Keep", "Allocate", "PutSecret"})
"""The first words of keys of actions that leave something behind."""
log = structlog.get_logger("agent")


@dataclass
class Worker:
    """One lease on one side."""

    memory: lender.Memory | borrow.Memory
    running: dict[tuple[str, ...], "asyncio.Task[None]"] = field(default_factory=dict)
    """Actions on their way."""
    done_at: dict[tuple[str, ...], float] = field(default_factory=dict)
    """When an action was last carried out (the loop's time)."""
    failure: BaseException | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Leases:
    """The workers. ``changed`` is called when ``engaged`` may give another answer."""

    def __init__(
        self,
        *,
        cache: Cache,
        eyes: Eyes,
        hands: Hands,
        trust: Trust,
        terms: lender.Terms,
        now: Callable[[], Now],
        changed: Callable[[], None],
    ) -> None:
        self._eyes, self._hands, self._trust, self._terms = eyes, hands, trust, terms
        self._now, self._changed = now, changed
        self._wishes: dict[Key, lender.Wish] = {}
        self._heard = False
        self._workers: dict[Key, Worker] = {}
        self._places: dict[str, str] = {}
        self._crash: asyncio.Future[None] | None = None
        cache[NAMESPACES].listen(self._namespace_changed)
        cache[DEVICE_LEASES].listen(self._record_changed)
        cache[RESOURCE_CLAIMS].listen(self._claim_changed)
        cache[PODS].listen(self._pod_changed)

    async def run(self) -> None:
        """Work until cancelled; raises what a worker could not survive."""
        self._crash = asyncio.get_running_loop().create_future()
        for key, worker in self._workers.items():
            self._start(key, worker)
        try:
            await self._crash
        finally:
            tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- what the broker wishes ----------------------------------------------------------------------------------
    async def wish_all(self, desired: Iterable[DesiredLease]) -> None:
        """The broker's whole list: leases that are not in it are not wished for."""
        wishes = {(each.role, each.id): await self._trust.wish(each) for each in desired}
        forgotten = self._wishes.keys() - wishes.keys()
        self._wishes, self._heard = wishes, True
        for key in forgotten | wishes.keys() | self._workers.keys():
            self._wake(key)
        self._changed()

    async def wish(self, desired: DesiredLease) -> None:
        """A change to one lease; an older one than what was heard is dropped."""
        key: Key = (desired.role, desired.id)
        known = self._wishes.get(key)
        if known is not None and known.desired.revision > desired.revision:
            return
        self._wishes[key] = await self._trust.wish(desired)
        self._wake(key)
        if desired.want == "gone":
            self._changed()

    def __len__(self) -> int:
        """Leases of which something is here, is wished for, or is on its way."""
        return len(self._workers)

    def look_again(self) -> None:
        """Wake every worker: time has passed, or the inventory has changed."""
        for key in list(self._workers):
            self._wake(key)

    def standing(self) -> list[LeaseReport]:
        """How every lease stands here, for the first report of a connection."""
        return [report for key, worker in self._workers.items() if (report := self._report(key, worker)) is not None]

    def engaged(self) -> set[str]:
        """Devices (``driver/pool/name``) of every lease that isn't over here: none of them is on offer."""
        found: set[str] = set()
        for (role, lease), worker in self._workers.items():
            if role == "lender":
                wish = self._wishes.get((role, lease))
                found |= self._eyes.engaged(lease, wish, ending=_is_ending(worker.memory))
        return found

    # --- what happens in the cluster -----------------------------------------------------------------------------
    def _namespace_changed(self, obj: Obj, here: bool) -> None:
        if lease := _lender_lease(obj["metadata"]["name"]):
            self._wake(("lender", lease), make=here and holding.lease_of(obj) == lease)

    def _record_changed(self, obj: Obj, here: bool) -> None:
        metadata = obj["metadata"]
        kept = self._eyes.kept(metadata["name"], metadata["namespace"]) if here else record.read(obj)
        if not here:
            self._eyes.forget(obj)
        if kept is not None:
            if kept.role == "borrower":
                self._places[kept.id] = kept.namespace
            self._wake((kept.role, kept.id), make=here)

    def _claim_changed(self, obj: Obj, here: bool) -> None:
        namespace = obj["metadata"].get("namespace", "")
        if lease := _lender_lease(namespace):
            self._wake(("lender", lease))
        elif (lease := holding.lease_of(obj)) and record.role_of(obj) == "borrower":
            self._places[lease] = namespace
            self._wake(("borrower", lease), make=here)

    def _pod_changed(self, obj: Obj, here: bool) -> None:
        if lease := _lender_lease(obj["metadata"].get("namespace", "")):
            self._wake(("lender", lease))

    def _wake(self, key: Key, *, make: bool = False) -> None:
        worker = self._workers.get(key)
        if worker is None:
            if not make and key not in self._wishes:
                return
            worker = Worker(lender.Memory() if key[0] == "lender" else borrow.Memory())
            self._workers[key] = worker
            if self._crash is not None:
                self._start(key, worker)
        worker.wake.set()

    # --- one worker ----------------------------------------------------------------------------------------------
    def _start(self, key: Key, worker: Worker) -> None:
        worker.task = asyncio.create_task(self._work(key, worker), name=f"{key[0]} {key[1]}")
        worker.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._crash is not None and not self._crash.done():
            self._crash.set_exception(error)

    async def _work(self, key: Key, worker: Worker) -> None:
        backoff = Backoff()
        try:
            while True:
                worker.wake.clear()
                try:
                    plan, wait = self._look(key, worker)
                    if plan.done and not worker.running:
                        self._forget(key)
                        return
                    wait = _sooner(wait, self._begin(key, plan, worker))
                except Exception as error:
                    worker.failure = error
                if worker.failure is not None:
                    await self._recover(key, worker, backoff)
                    continue
                if not worker.running:
                    backoff.reset()
                try:
                    async with asyncio.timeout(wait):
                        await worker.wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in worker.running.values():
                task.cancel()

    def _begin(self, key: Key, plan: Plan, worker: Worker) -> float | None:
        """Start what isn't on its way yet; seconds until something may be started that was done a moment ago."""
        again: float | None = None
        now = asyncio.get_running_loop().time()
        if _is_ending(worker.memory) and any(what[0] in MAKING for what in worker.running):
            return None  # what is still being made would come after its own clearing away
        for action in plan.actions:
            what = key_of(action)
            if what in worker.running:
                continue
            rest = worker.done_at.get(what, -STUCK_S) + STUCK_S - now
            if rest > 0 and not isinstance(action, Say):
                again = _sooner(again, rest)  # its effect is still on the way to the cache
                continue
            log.debug("lease.do", lease=key[1], role=key[0], action=what)
            worker.running[what] = asyncio.create_task(self._do(what, action, worker))
        return again

    async def _do(self, what: tuple[str, ...], action: Action, worker: Worker) -> None:
        try:
            await self._hands.do(action, worker.memory)
        except Exception as error:
            worker.failure = error
        finally:
            worker.running.pop(what, None)
            worker.done_at[what] = asyncio.get_running_loop().time()
            worker.wake.set()

    async def _recover(self, key: Key, worker: Worker, backoff: Backoff) -> None:
        """Something failed: say so, let what is on its way arrive, wait, and forget it; the next look knows better."""
        error, worker.failure = worker.failure, None
        pause = backoff.delay()
        told = describe(error) if error is not None else ""
        log.warning("lease.failed", lease=key[1], role=key[0], error=told, again_s=round(pause, 2))
        await asyncio.sleep(pause)
        worker.done_at.clear()

    def _forget(self, key: Key) -> None:
        del self._workers[key]
        self._wishes.pop(key, None)
        if key[0] == "borrower":
            self._places.pop(key[1], None)
        self._changed()

    def _look(self, key: Key, worker: Worker) -> tuple[Plan, float | None]:
        now, memory = self._now(), worker.memory
        if isinstance(memory, lender.Memory):
            view = self._lender(key[1])
            self._receive(view, memory, now)
            began = memory.ending
            plan = lend.plan(view, memory, now, self._terms)
            if memory.ending is not began and memory.ending is not None:
                log.info("lease.ending", lease=key[1], role=key[0], phase=memory.ending.phase, why=memory.ending.reason)
            return plan, lend.seconds_left(view, memory, now, self._terms)
        mirror = self._borrower(key[1])
        plan = borrow.plan(mirror, memory, now, skew=self._terms.skew, borrows=self._terms.borrows)
        return plan, None if memory.reason else borrow.seconds_left(mirror, now, skew=self._terms.skew)

    def _receive(self, view: lender.View, memory: lender.Memory, now: Now) -> None:
        """Start the clock that nobody can set, when a token is first seen here."""
        claims = view.record.claims if view.record else None
        fresh = view.wish.claims if view.wish else None
        if claims is not None and memory.received != claims.generation:
            again = memory.received is None and (fresh is None or fresh.generation == claims.generation)
            memory.receipt = expiry.received(claims, now, again=again)
            memory.received = claims.generation

    def _lender(self, lease: str) -> lender.View:
        return self._eyes.lending(lease, self._wishes.get(("lender", lease)), heard=self._heard)

    def _borrower(self, lease: str) -> borrow.View:
        wish, place = self._wishes.get(("borrower", lease)), self._places.get(lease)
        return self._eyes.borrowing(lease, wish, heard=self._heard, place=place)

    def _report(self, key: Key, worker: Worker) -> LeaseReport | None:
        if worker.memory.said is not None:
            return worker.memory.said
        if key[0] == "lender":
            return lend.standing(self._lender(key[1]), self._terms)
        return borrow.standing(self._borrower(key[1]))


def _is_ending(memory: lender.Memory | borrow.Memory) -> bool:
    return bool(memory.reason) if isinstance(memory, borrow.Memory) else memory.ending is not None


def _sooner(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _lender_lease(namespace: str) -> str | None:
    return namespace.removeprefix(PREFIX) if namespace.startswith(PREFIX + "lse-") else None
