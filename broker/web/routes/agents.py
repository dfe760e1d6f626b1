"""What agents say and hear. They dial out; the broker only answers."""

from collections.abc import AsyncIterator
from typing import Annotated

from broker.domain.access import AGENT
from broker.service.answers import Change
from broker.web.call import Call, Signed
from broker.web.routing import route
from broker.wire.agents import BurstPolicyReport, BurstPolicyStatuses, Desired, Heard
from broker.wire.leases import DesiredLease

TAG = "Agents"


async def put_advert(call: Call, *, body: Signed) -> Heard:
    """Say everything the cluster offers now: a signed ``Advert`` (JWS, ``typ: advert+jws``).

    Replaces the advert before it; a sequence that was heard before changes nothing. Also the agent's heartbeat.
    """
    return await call.broker.advert(call.who, body)


async def put_report(call: Call, *, body: Signed) -> Heard:
    """Say how the cluster's leases stand: a signed ``Report`` (JWS, ``typ: report+jws``).

    A sequence that was heard before changes nothing.
    """
    return await call.broker.report(call.who, body)


async def get_desired(call: Call) -> Desired:
    """Read everything the broker wants of this cluster; then watch from its revision."""
    return await call.broker.desired(call.who)


async def put_reported_burst_policies(call: Call, *, body: BurstPolicyReport) -> BurstPolicyStatuses:
    """Say which BurstPolicy objects the cluster has, and hear what each may still spend."""
    return await call.broker.burst_policies_report(call.who, body)


def watch_desired(call: Call, *, after: int | None) -> Annotated[AsyncIterator[Change], DesiredLease]:
    """Watch what the broker wants of this cluster, lease by lease."""
    return call.broker.changes(call.who, "desired", after)


ROUTES = (
    route("PUT", "/v1/agent/advert", put_advert, needs=AGENT, tag=TAG),
    route("PUT", "/v1/agent/report", put_report, needs=AGENT, tag=TAG),
    route("GET", "/v1/agent/desired", get_desired, needs=AGENT, tag=TAG),
    route("GET", "/v1/agent/watch", watch_desired, needs=AGENT, tag=TAG),
    route("PUT", "/v1/agent/burst-policies", put_reported_burst_policies, needs=AGENT, tag=TAG),
)
