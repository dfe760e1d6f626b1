"""CapacityRequest objects: what a user applies becomes a request at the broker, and its status tells how it goes.

The request's Idempotency-Key is the object's uid and generation, so an agent that dies between asking and noting the
answer asks the same again and hears the same. Each request carries the uid as a label: one whose object is gone is
taken back, and a lease that was made for it is returned, whether the agent was there when it was deleted or not.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from pydantic import ValidationError

from broker.kit.loops import Loop
from broker.wire.base import Problem
from broker.wire.requests import CapacityRequest, RequestView
from clusteragent.cache import Shelf, deleting, uid_of
from clusteragent.camel import snake
from clusteragent.kube.interface import CAPACITY_REQUESTS, Kube, KubeError, NotFound, Obj
from clusteragent.loops import Backoff, describe, supervised
from clusteragent.uplink import UNFINISHED, Refused, Unreachable, Uplink

OBJECT_LABEL = "lendmesh.dev/object"
RESYNC_S = 30.0
RETRY_S = 1.0
MOST_REASONS = 16
log = structlog.get_logger("agent")


class Requests:
    """Serves the CapacityRequests of one cluster. ``run`` it; ``changed`` is called when one's state has changed."""

    def __init__(
        self, *, cluster: str, kube: Kube, shelf: Shelf, uplink: Uplink, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._cluster, self._kube, self._shelf, self._uplink = cluster, kube, shelf, uplink
        self._changed = changed
        self._views: dict[str, RequestView] = {}
        self._listed = False
        self._loop = Loop("requests", self._step, every=RESYNC_S)
        shelf.listen(lambda obj, here: self._loop.nudge())

    async def run(self) -> None:
        await supervised(self._loop.run(), self._follow())

    async def _follow(self) -> None:
        backoff = Backoff(longest=5.0)
        while True:
            try:
                views, revision = await self._uplink.requests()
                self._views, self._listed = {view.id: view for view in views}, True
                self._loop.nudge()
                async for view in self._uplink.request_changes(revision):
                    backoff.reset()
                    self._hear(view)
            except (Unreachable, Refused) as error:
                pause = backoff.delay()
                log.info("requests.lost", error=describe(error), again_s=round(pause, 2))
                await asyncio.sleep(pause)

    def _hear(self, view: RequestView) -> None:
        if view.cluster != self._cluster:
            return
        known = self._views.get(view.id)
        if known is None or known.revision <= view.revision:
            self._views[view.id] = view
            self._loop.nudge()

    async def _step(self) -> float | None:
        """Look at every object and at every request that was made for one; seconds until the next look."""
        if not self._listed or not self._shelf.synced.is_set():
            return None
        failures: list[Exception] = []
        objects = {uid_of(obj): obj for obj in self._shelf}
        for obj in objects.values():
            try:
                if not deleting(obj):
                    await self._serve(obj)
            except (KubeError, Unreachable, OSError) as error:
                failures.append(error)
                log.warning("request.failed", name=obj["metadata"]["name"], error=describe(error))
        for view in list(self._views.values()):
            uid = view.request.labels.get(OBJECT_LABEL)
            if uid is not None and uid not in objects and view.state in UNFINISHED:
                try:
                    await self._take_back(view.id)
                except Unreachable as error:
                    failures.append(error)
                    log.warning("request.kept", request=view.id, error=describe(error))
            elif view.state not in UNFINISHED and (uid is None or uid not in objects):
                del self._views[view.id]
        return RETRY_S if failures else None

    async def _serve(self, obj: Obj) -> None:
        metadata, status = obj["metadata"], obj.get("status") or {}
        generation = metadata.get("generation", 1)
        if status.get("observedGeneration") != generation:
            if status.get("request"):
                await self._take_back(status["request"])
            await self._tell(obj, {"observedGeneration": generation, **await self._ask(obj, generation)})
            return
        request = status.get("request")
        if request is None:
            return
        view = self._views.get(request)
        if view is None and status.get("state") in {state.value for state in UNFINISHED}:
            view = self._views[request] = await self._uplink.request(request)
        if view is not None:
            await self._tell(obj, {"observedGeneration": generation, **told(view)})

    async def _ask(self, obj: Obj, generation: int) -> Obj:
        try:
            body = wanted(obj, cluster=self._cluster)
        except ValidationError as error:
            return refused([f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()])
        try:
            view = await self._uplink.submit(body, key=f"{uid_of(obj)}-{generation}")
        except Refused as error:
            return refused([error.problem.detail, *_sentences(error.problem)])
        log.info("request.sent", request=view.id, namespace=obj["metadata"]["namespace"], name=obj["metadata"]["name"])
        self._views[view.id] = view
        return told(view)

    async def _take_back(self, request: str) -> None:
        try:
            await self._uplink.cancel(request)
        except Refused as error:
            log.info("request.over", request=request, error=str(error))
        self._views.pop(request, None)

    async def _tell(self, obj: Obj, status: Obj) -> None:
        """Write the status where it says something new; fields that are over are taken out (merge patch: null)."""
        before = obj.get("status") or {}
        if all(before.get(key) == value for key, value in status.items()):
            return
        metadata = obj["metadata"]
        patch = {**{key: None for key in before if key not in status}, **status}
        try:
            changed = await self._kube.merge(
                CAPACITY_REQUESTS, metadata["name"], {"status": patch}, namespace=metadata["namespace"], status=True
            )
        except NotFound:
            return
        self._shelf.note(changed)
        self._changed()


def wanted(obj: Obj, *, cluster: str) -> CapacityRequest:
    """The request in an object. Whoever may write in a namespace gets the access to the devices there, nowhere else."""
    metadata, spec = obj["metadata"], snake(obj.get("spec") or {})
    labels = {**spec.pop("labels", {}), OBJECT_LABEL: uid_of(obj)}
    workload = {**spec.pop("workload", {}), "namespace": metadata["namespace"]}
    return CapacityRequest.model_validate({**spec, "cluster": cluster, "labels": labels, "workload": workload})


def told(view: RequestView) -> Obj:
    """What the object's status says of a request."""
    status: dict[str, Any] = {
        "request": view.id,
        "state": view.state.value,
        "step": view.step.value,
        "message": view.message,
        "reasons": [{"reason": each.reason, "detail": each.detail} for each in view.reasons[:MOST_REASONS]],
    }
    if view.lease is not None:
        status["lease"] = view.lease
    if view.placement is not None:
        placed = view.placement.model_dump(mode="json", include={"cluster": True, "price": True, "cost": True})
        status |= {"lender": placed["cluster"], "price": placed["price"]["amount"], "cost": placed["cost"]["amount"]}
    return status


def refused(sentences: list[str]) -> Obj:
    """The status of an object that asks for something that can't be asked for."""
    reasons = [{"reason": "invalid", "detail": sentence[:1_024]} for sentence in sentences[:MOST_REASONS]]
    return {
        "state": "Refused",
        "step": "ended",
        "message": sentences[0][:1_024] if sentences else "",
        "reasons": reasons,
    }


def _sentences(problem: Problem) -> list[str]:
    told: list[Mapping[str, Any]] = [*problem.errors, *problem.reasons]
    return [str(each.get("detail") or each) for each in told]
