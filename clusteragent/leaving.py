"""Carrying out burst policies: tell the broker of them, make and end requests, say in each status what was done."""

import asyncio
import time
from collections.abc import Mapping

import structlog
from pydantic import ValidationError

from broker.kit.clock import Clock
from broker.wire.agents import BurstPolicyReport
from broker.wire.burst import BurstPolicySpec, BurstPolicyStatus
from clusteragent import burst
from clusteragent.cache import Cache, uid_of
from clusteragent.camel import spec_of
from clusteragent.kube.interface import (
    BURST_POLICIES,
    CAPACITY_REQUESTS,
    DEVICE_CLASSES,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIMS,
    AlreadyExists,
    Kube,
    NotFound,
    Obj,
)
from clusteragent.loops import Backoff, describe
from clusteragent.uplink import Refused, Unreachable, Uplink

RESYNC_S = 30.0
PAUSE_S = 0.2
"""Pods change all the time; they are looked at so often at most."""
MOST_SAID = 20
log = structlog.get_logger("agent")


class Leaving:
    """The burst policies of one cluster. ``run`` it as a loop."""

    def __init__(self, *, kube: Kube, cache: Cache, uplink: Uplink, clock: Clock) -> None:
        self._kube, self._cache, self._uplink, self._clock = kube, cache, uplink, clock
        self._nudged = asyncio.Event()
        self._reported: tuple[dict[str, BurstPolicySpec], float] | None = None
        self._statuses: Mapping[str, BurstPolicyStatus] = {}
        for kind in (BURST_POLICIES, CAPACITY_REQUESTS, PODS, RESOURCE_CLAIMS):
            cache[kind].listen(lambda obj, here: self._nudged.set())

    def nudge(self) -> None:
        """A request has changed, so the budgets may have."""
        self._reported = None
        self._nudged.set()

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            self._nudged.clear()
            wait: float | None = RESYNC_S
            try:
                wait = await self._step()
                backoff.reset()
            except Exception as error:
                wait = backoff.delay()
                log.warning("burst.failed", error=describe(error), again_s=round(wait, 2))
                await asyncio.sleep(wait)
                continue
            try:
                async with asyncio.timeout(min(wait, RESYNC_S) if wait is not None else RESYNC_S):
                    await self._nudged.wait()
                await asyncio.sleep(PAUSE_S)
            except TimeoutError:
                pass

    async def _step(self) -> float | None:
        """Look once; the answer is when to look again."""
        if not all(self._cache[kind].synced.is_set() for kind in (BURST_POLICIES, CAPACITY_REQUESTS, PODS)):
            return None
        unreadable: dict[str, str] = {}
        policies = self._policies(unreadable)
        known = await self._report(policies)
        made = [
            obj for obj in self._cache[CAPACITY_REQUESTS] if burst.POD_LABEL in (obj["metadata"].get("labels") or {})
        ]
        if not policies and not made and not unreadable:
            return None
        decision = burst.decide(
            policies=policies,
            pods=self._cache[PODS],
            namespaces=self._cache[NAMESPACES].get,
            claims=lambda namespace, name: self._cache[RESOURCE_CLAIMS].get(name, namespace),
            classes=self._cache[DEVICE_CLASSES].get,
            requests=made,
            now=self._clock(),
        )
        for obj in decision.make if known else ():
            await self._make(obj)
        for obj in decision.end:
            metadata = obj["metadata"]
            log.info("burst.home", namespace=metadata["namespace"], request=metadata["name"])
            await self._kube.delete(
                CAPACITY_REQUESTS, metadata["name"], namespace=metadata["namespace"], uid=uid_of(obj)
            )
        for obj in self._cache[BURST_POLICIES]:
            await self._tell(obj, decision, unreadable)
        return decision.again_s

    def _policies(self, unreadable: dict[str, str]) -> dict[str, BurstPolicySpec]:
        found = {}
        for obj in self._cache[BURST_POLICIES]:
            name = obj["metadata"]["name"]
            try:
                found[name] = spec_of(BurstPolicySpec, obj)
            except ValidationError as error:
                first = error.errors()[0]
                unreadable[name] = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return found

    async def _report(self, policies: dict[str, BurstPolicySpec]) -> bool:
        """Whether the broker, who keeps the budgets, knows these policies; before that no request may name one."""
        due = self._reported is None or time.monotonic() - self._reported[1] > RESYNC_S
        if not due and self._reported is not None and self._reported[0] == policies:
            return True
        try:
            answer = await self._uplink.burst_policies(BurstPolicyReport(policies=policies))
        except (Unreachable, Refused) as error:
            log.info("burst.unreported", error=describe(error))
            return False
        self._statuses = answer.policies
        self._reported = (policies, time.monotonic())
        return True

    async def _make(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        try:
            self._cache[CAPACITY_REQUESTS].note(await self._kube.create(CAPACITY_REQUESTS, obj))
        except AlreadyExists:
            return
        log.info(
            "burst.leaves",
            policy=obj["spec"]["policy"],
            namespace=metadata["namespace"],
            pod=obj["spec"]["workload"]["name"],
            devices=obj["spec"]["devices"]["count"],
        )

    async def _tell(self, obj: Obj, decision: burst.Decision, unreadable: Mapping[str, str]) -> None:
        name = obj["metadata"]["name"]
        said = sorted(decision.said.get(name, {}).items())
        status: Obj = {
            "observedGeneration": obj["metadata"].get("generation", 1),
            "message": f"unreadable: {unreadable[name]}"[:1_000] if name in unreadable else "",
            "pods": [{"pod": pod, "decision": sentence[:500]} for pod, sentence in said[:MOST_SAID]],
        }
        known = self._statuses.get(name)
        if known is not None:
            spend = known.spend.model_dump(mode="json", exclude_none=True)
            status |= {"spend": spend, "liveLeases": known.live_leases}
            status["message"] = status["message"] or known.message
        before = obj.get("status") or {}
        if all(before.get(key) == value for key, value in status.items()):
            return
        try:
            changed = await self._kube.merge(BURST_POLICIES, name, {"status": status}, status=True)
        except NotFound:
            return
        self._cache[BURST_POLICIES].note(changed)
