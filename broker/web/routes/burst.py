"""Burst policies: when, where and for how much a borrower's cluster leaves home."""

from broker.domain.access import READ, REQUEST
from broker.service.answers import Page
from broker.web.call import Call, Paging
from broker.web.routing import route
from broker.wire.base import Name
from broker.wire.burst import BurstPolicySpec, BurstPolicyView

TAG = "Burst policies"


class BurstQuery(Paging):
    """Which burst policies to list."""

    cluster: Name | None = None
    """Only this cluster's."""


async def list_burst_policies(call: Call, *, query: BurstQuery) -> Page[BurstPolicyView]:
    """List your tenant's burst policies, with what each has spent this month."""
    return await call.broker.burst_policies(call.who, cluster=query.cluster, cursor=query.cursor, limit=query.limit)


async def get_burst_policy(call: Call, *, cluster: str, policy: str) -> BurstPolicyView:
    """Read one burst policy."""
    return await call.broker.burst_policy(call.who, cluster, policy)


async def put_burst_policy(call: Call, *, cluster: str, policy: str, body: BurstPolicySpec) -> BurstPolicyView:
    """Set a burst policy.

    A policy that exists as a BurstPolicy object in the cluster is changed there, not here.
    """
    return await call.broker.put_burst_policy(call.who, cluster, policy, body)


async def delete_burst_policy(call: Call, *, cluster: str, policy: str) -> None:
    """Delete a burst policy; leases that were made under it run on to their end."""
    await call.broker.delete_burst_policy(call.who, cluster, policy)


ROUTES = (
    route("GET", "/v1/burst-policies", list_burst_policies, needs=READ, tag=TAG),
    route("GET", "/v1/burst-policies/{cluster}/{policy}", get_burst_policy, needs=READ, tag=TAG),
    route("PUT", "/v1/burst-policies/{cluster}/{policy}", put_burst_policy, needs=REQUEST, tag=TAG),
    route("DELETE", "/v1/burst-policies/{cluster}/{policy}", delete_burst_policy, needs=REQUEST, tag=TAG),
)
