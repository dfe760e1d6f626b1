"""Clusters: the members of the federation."""

from broker.domain.access import ADMIN, READ
from broker.service.answers import Page
from broker.web.call import Call, Paging
from broker.web.routing import route
from broker.wire.agents import ClusterView

TAG = "Clusters"


async def list_clusters(call: Call, *, query: Paging) -> Page[ClusterView]:
    """List your tenant's clusters: when they were last heard, what they offer, lend and borrow."""
    return await call.broker.clusters(call.who, cursor=query.cursor, limit=query.limit)


async def get_cluster(call: Call, *, cluster: str) -> ClusterView:
    """Read one cluster."""
    return await call.broker.cluster(call.who, cluster)


async def remove_cluster(call: Call, *, cluster: str) -> ClusterView:
    """Take a cluster out of the federation: its credential is refused from now on, and its leases end."""
    return await call.broker.remove_cluster(call.who, cluster)


ROUTES = (
    route("GET", "/v1/clusters", list_clusters, needs=READ, tag=TAG),
    route("GET", "/v1/clusters/{cluster}", get_cluster, needs=READ, tag=TAG),
    route("DELETE", "/v1/clusters/{cluster}", remove_cluster, needs=ADMIN, tag=TAG, revokes=True),
)
