"""Carrying out what a plan asks for: the only place where the agent changes a cluster on behalf of a lease.

Each action is a call or two, made so that doing it again does no harm, and leaves in ``Memory`` that it was done. No
more than a fixed number of calls run at once over all leases; the API server's answers go back into the cache, so that
the next look sees them before the watch does.
"""

import base64
import json
from collections.abc import Callable, Sequence

import structlog

from broker.kit.clock import Clock
from broker.kit.jose import BadSignature, SealingKey, seal
from clusteragent import borrow, holding, lender
from clusteragent.actions import (
    Action,
    Allocate,
    Create,
    Delete,
    Fence,
    GiveBack,
    Issue,
    Keep,
    LetGo,
    Merge,
    PutSecret,
    Rest,
    Say,
    priority_of,
)
from clusteragent.cache import Cache
from clusteragent.fences import Fences
from clusteragent.kube.interface import (
    RESOURCE_CLAIMS,
    ROLE_BINDINGS,
    SECRETS,
    AlreadyExists,
    Conflict,
    Kind,
    Kube,
    NotFound,
    Obj,
)
from clusteragent.reporter import Reporter
from clusteragent.settings import Settings
from clusteragent.slots import Slots
from clusteragent.uplink import Refused, Uplink

TRIES = 20
"""Attempts at an update that somebody else's update overtook; controllers write a claim's status too."""
Memory = lender.Memory | borrow.Memory
log = structlog.get_logger("agent")


class Hands:
    """Does actions. Raises ``KubeError``, network trouble or ``Unreachable``: then it is tried again later."""

    def __init__(
        self,
        *,
        settings: Settings,
        kube: Kube,
        cache: Cache,
        uplink: Uplink,
        reporter: Reporter,
        fences: Fences,
        sealing: SealingKey,
        rest: Callable[[Sequence[str]], None],
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._settings, self._kube, self._cache, self._uplink = settings, kube, cache, uplink
        self._reporter, self._fences, self._sealing, self._rest = reporter, fences, sealing, rest
        self._clock, self._monotonic = clock, monotonic
        self._slots = Slots(settings.calls)

    async def do(self, action: Action, memory: Memory) -> None:
        """Carry out one action."""
        if isinstance(action, Say):
            memory.said = action.report
            self._reporter.say(action.report)
            return
        if isinstance(action, Rest):
            self._rest(action.devices)
            if isinstance(memory, lender.Memory):
                memory.owes_rest = False
            return
        if isinstance(action, GiveBack):
            await self._give_back(action, memory)
            return
        async with self._slots.turn(priority_of(action)):
            await self._call(action, memory)

    async def _call(self, action: Action, memory: Memory) -> None:
        match action:
            case Create():
                try:
                    await self._create(action.kind, action.obj)
                except NotFound as error:  # its namespace: nowhere to put what was borrowed
                    if not isinstance(memory, borrow.Memory):
                        raise
                    memory.refused = f"the borrower's cluster has no place for it: {error.message}"[:500]
                if isinstance(memory, lender.Memory):
                    memory.created.add((action.kind.plural, action.obj["metadata"]["name"]))
            case Delete():
                await self._delete(action)
                memory.deleted.add(_deleted(action))
            case Merge():
                await self._merge(action)
            case Keep():
                entry = holding.entry(action.lease, action.lease_uid)
                await self._update_claim(action.namespace, action.claim, lambda status: _with_entry(status, entry))
            case LetGo():
                await self._let_go(action)
                memory.deleted.add(action.uid)
            case Allocate():
                await self._update_claim(action.namespace, action.claim, lambda status: {**status, **action.status})
            case PutSecret():
                await self._put_secret(action)
                if isinstance(memory, borrow.Memory):
                    memory.serial = action.serial
            case Fence():
                await self._fences.remember(action.fences)
                if isinstance(memory, lender.Memory):
                    memory.fenced = True
            case Issue():
                if isinstance(memory, lender.Memory):
                    await self._issue(action, memory)
            case _:
                raise TypeError(f"nobody knows how to do {type(action).__name__}")

    async def _create(self, kind: Kind, obj: Obj) -> None:
        try:
            made = await self._kube.create(kind, obj)
        except AlreadyExists:
            if kind not in self._cache:
                return
            made = await self._kube.get(kind, obj["metadata"]["name"], obj["metadata"].get("namespace"))
        self._cache.note(kind, made)

    async def _merge(self, action: Merge) -> None:
        try:
            merged = await self._kube.merge(
                action.kind, action.name, action.patch, namespace=action.namespace, status=action.status
            )
        except NotFound:
            return  # it went meanwhile; the next look will see that
        self._cache.note(action.kind, merged)

    async def _delete(self, action: Delete) -> None:
        try:
            await self._kube.delete(
                action.kind, action.name, namespace=action.namespace, uid=action.uid, grace_s=action.grace_s
            )
        except Conflict:
            log.info("delete.other", kind=action.kind.plural, name=action.name)  # another of that name: not ours to end

    async def _let_go(self, action: LetGo) -> None:
        try:
            await self._kube.delete(RESOURCE_CLAIMS, action.claim, namespace=action.namespace, uid=action.uid)
        except Conflict:
            return
        try:
            await self._update_claim(action.namespace, action.claim, _without_entries, fresh=True)
        except NotFound:
            return

    async def _update_claim(
        self, namespace: str, name: str, change: Callable[[Obj], Obj], *, fresh: bool = False
    ) -> None:
        """Change a claim's status by get and update: merge patches would race for lists (facts dra.md §6)."""
        claim = None if fresh else self._cache[RESOURCE_CLAIMS].get(name, namespace)
        for _ in range(TRIES):
            if claim is None:
                claim = await self._kube.get(RESOURCE_CLAIMS, name, namespace)
            status = change(claim.get("status", {}))
            if status == claim.get("status", {}):
                self._cache.note(RESOURCE_CLAIMS, claim)
                return
            try:
                changed = await self._kube.replace(RESOURCE_CLAIMS, {**claim, "status": status}, status=True)
            except Conflict:
                claim = None
                continue
            self._cache.note(RESOURCE_CLAIMS, changed)
            return
        raise TimeoutError(f"claim {namespace}/{name} changes faster than it can be updated")

    async def _issue(self, action: Issue, memory: lender.Memory) -> None:
        life = self._settings.credential
        token = await self._kube.token(action.namespace, holding.ACCOUNT, seconds=life)
        config = kubeconfig(
            server=self._settings.api_server_url or self._kube.server,
            ca_pem=self._kube.ca_pem,
            namespace=action.namespace,
            token=token,
        )
        memory.sealed = seal(config, to=action.seal_to)
        memory.serial = max(memory.serial + 1, int(self._clock().timestamp()))
        memory.renew_at = self._monotonic() + life / 2

    async def _put_secret(self, action: PutSecret) -> None:
        try:
            config = self._sealing.open(action.sealed)
        except BadSignature as error:
            log.error("credential.unusable", name=action.obj["metadata"]["name"], error=str(error))
            return
        secret = {**action.obj, "data": {"kubeconfig": base64.b64encode(config).decode()}}
        try:
            await self._kube.create(SECRETS, secret)
        except AlreadyExists:
            metadata = secret["metadata"]
            await self._kube.merge(SECRETS, metadata["name"], {"data": secret["data"]}, namespace=metadata["namespace"])

    async def _give_back(self, action: GiveBack, memory: Memory) -> None:
        try:
            await self._uplink.return_lease(action.lease)
        except Refused as error:
            log.info("return.refused", lease=action.lease, error=str(error))  # it has ended already
        if isinstance(memory, borrow.Memory):
            memory.given_back = True


def kubeconfig(*, server: str, ca_pem: str, namespace: str, token: str) -> bytes:
    """A kubeconfig that reaches one namespace as one account: data only, no programs, no files."""
    lines = [
        "apiVersion: v1",
        "kind: Config",
        "clusters:",
        "- name: lender",
        "  cluster:",
        f"    server: {_text(server)}",
    ]
    if ca_pem:
        lines.append(f"    certificate-authority-data: {base64.b64encode(ca_pem.encode()).decode()}")
    lines += ["users:", "- name: borrower", "  user:", f"    token: {_text(token)}", "contexts:", "- name: lease"]
    lines += ["  context:", "    cluster: lender", "    user: borrower", f"    namespace: {_text(namespace)}"]
    return "\n".join([*lines, "current-context: lease", ""]).encode()


def _text(value: str) -> str:
    """A text in YAML, whatever is in it: a JSON string is one."""
    return json.dumps(value)


def _deleted(action: Delete) -> str:
    if action.kind == ROLE_BINDINGS:
        return "binding"
    if action.kind == SECRETS:
        return "secret"
    return action.uid or action.name


def _with_entry(status: Obj, entry: Obj) -> Obj:
    reserved = status.get("reservedFor") or []
    if any(each.get("uid") == entry["uid"] for each in reserved):
        return status
    return {**status, "reservedFor": [*reserved, entry]}


def _without_entries(status: Obj) -> Obj:
    reserved = status.get("reservedFor") or []
    left = [each for each in reserved if not holding.is_ours(each)]
    return status if len(left) == len(reserved) else {**status, "reservedFor": left}
