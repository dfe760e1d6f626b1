"""Tokens: how people and programs prove who they are, and how clusters join."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from broker.wire.base import Duration, Inbound, Name, Outbound


class Scope(StrEnum):
    """What a token may do, within its tenant."""

    READ = "read"  # see the tenant's own requests and leases, and the offers open to it
    REQUEST = "request"  # ask for capacity, cancel, return, renew
    LEND = "lend"  # reclaim what the tenant's clusters have lent
    METRICS = "metrics"  # scrape /metrics
    ADMIN = "admin"  # everything, in every tenant: tokens, clusters, revocation


class TokenRequest(Inbound):
    """Ask for a token."""

    name: Name
    tenant: Name
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=8)]
    lifetime: Duration = 90 * 86_400


class TokenView(Outbound):
    """A token, without its secret."""

    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


class TokenCreated(TokenView):
    """The one time the secret is shown."""

    secret: str


class JoinTokenRequest(Inbound):
    """Ask for a one-use token with which one cluster may join."""

    cluster: Name
    tenant: Name
    lifetime: Duration = 3_600


class JoinTokenView(Outbound):
    """A join token, without its secret."""

    id: str
    cluster: str
    tenant: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


class JoinTokenCreated(JoinTokenView):
    """The one time the secret is shown; the broker's CA is pinned in it by its SHA-256."""

    secret: Annotated[str, StringConstraints(max_length=256)]


class Me(Outbound):
    """Who the broker thinks you are."""

    subject: str
    tenant: str
    scopes: list[str]
    cluster: str | None = None
