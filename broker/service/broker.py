"""The broker as its web room and its chores know it: one object, one method per use case.

Every method loads, decides (in ``broker.domain``) and saves in one transaction, and answers with a wire model or
raises a refusal from ``broker.domain.errors``. The nouns live in their own modules; here they only meet.
"""

from collections.abc import AsyncIterator
from typing import Any, Literal

from broker.domain.access import Once, Principal
from broker.service.answers import Change, Page
from broker.wire.access import (
    JoinTokenCreated,
    JoinTokenRequest,
    JoinTokenView,
    Me,
    TokenCreated,
    TokenRequest,
    TokenView,
)
from broker.wire.agents import BurstPolicyReport, BurstPolicyStatuses, ClusterView, Desired, Heard, Join, Joined
from broker.wire.burst import BurstPolicySpec, BurstPolicyView
from broker.wire.leases import LeaseState, LeaseView, Reclaim, Renewal, Revocation
from broker.wire.offers import OfferView
from broker.wire.requests import CapacityRequest, RequestState, RequestView

Watched = Literal["leases", "offers", "requests", "desired"]


class Broker:
    """All use cases. Build it with a store and keys, ``await start()`` once, then serve."""

    # --- life -----------------------------------------------------------------------------------------------------
    async def start(self) -> None: ...
    async def ready(self) -> str | None:
        """None when it can serve; otherwise why not."""
        raise NotImplementedError

    def jwks(self) -> dict[str, Any]:
        raise NotImplementedError

    # --- access ---------------------------------------------------------------------------------------------------
    async def authenticate(self, secret: str) -> Principal:
        raise NotImplementedError

    async def first_token(self, *, name: str, tenant: str, lifetime_s: int) -> TokenCreated:
        """An administrator's token without anybody asking: for whoever starts the broker."""
        raise NotImplementedError

    async def me(self, p: Principal) -> Me:
        raise NotImplementedError

    async def create_token(self, p: Principal, body: TokenRequest, once: Once | None = None) -> TokenCreated:
        raise NotImplementedError

    async def list_tokens(self, p: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[TokenView]:
        raise NotImplementedError

    async def revoke_token(self, p: Principal, token_id: str) -> TokenView:
        raise NotImplementedError

    async def create_join_token(
        self, p: Principal, body: JoinTokenRequest, once: Once | None = None
    ) -> JoinTokenCreated:
        raise NotImplementedError

    async def list_join_tokens(
        self, p: Principal, *, cursor: str | None = None, limit: int = 50
    ) -> Page[JoinTokenView]:
        raise NotImplementedError

    async def revoke_join_token(self, p: Principal, token_id: str) -> None:
        raise NotImplementedError

    async def join(self, body: Join, once: Once | None = None) -> Joined:
        raise NotImplementedError

    # --- requests -------------------------------------------------------------------------------------------------
    async def submit(self, p: Principal, body: CapacityRequest, once: Once | None = None) -> RequestView:
        raise NotImplementedError

    async def quote(self, p: Principal, body: CapacityRequest) -> RequestView:
        raise NotImplementedError

    async def request(self, p: Principal, request_id: str) -> RequestView:
        raise NotImplementedError

    async def requests(
        self, p: Principal, *, state: RequestState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[RequestView]:
        raise NotImplementedError

    async def cancel(self, p: Principal, request_id: str) -> RequestView:
        raise NotImplementedError

    # --- offers ---------------------------------------------------------------------------------------------------
    async def offers(
        self,
        p: Principal,
        *,
        model: str | None = None,
        region: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[OfferView]:
        raise NotImplementedError

    async def offer(self, p: Principal, offer_id: str) -> OfferView:
        raise NotImplementedError

    # --- leases ---------------------------------------------------------------------------------------------------
    async def lease(self, p: Principal, lease_id: str) -> LeaseView:
        raise NotImplementedError

    async def leases(
        self,
        p: Principal,
        *,
        state: LeaseState | None = None,
        cluster: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[LeaseView]:
        raise NotImplementedError

    async def return_lease(self, p: Principal, lease_id: str, once: Once | None = None) -> LeaseView:
        raise NotImplementedError

    async def renew(self, p: Principal, lease_id: str, body: Renewal, once: Once | None = None) -> LeaseView:
        raise NotImplementedError

    async def reclaim(self, p: Principal, lease_id: str, body: Reclaim, once: Once | None = None) -> LeaseView:
        raise NotImplementedError

    async def revoke(self, p: Principal, lease_id: str, body: Revocation, once: Once | None = None) -> LeaseView:
        raise NotImplementedError

    # --- clusters -------------------------------------------------------------------------------------------------
    async def clusters(self, p: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[ClusterView]:
        raise NotImplementedError

    async def cluster(self, p: Principal, name: str) -> ClusterView:
        raise NotImplementedError

    async def remove_cluster(self, p: Principal, name: str) -> ClusterView:
        raise NotImplementedError

    # --- agents ---------------------------------------------------------------------------------------------------
    async def advert(self, p: Principal, jws: str) -> Heard:
        raise NotImplementedError

    async def report(self, p: Principal, jws: str) -> Heard:
        raise NotImplementedError

    async def desired(self, p: Principal) -> Desired:
        raise NotImplementedError

    async def burst_policies_report(self, p: Principal, body: BurstPolicyReport) -> BurstPolicyStatuses:
        raise NotImplementedError

    # --- burst policies -------------------------------------------------------------------------------------------
    async def burst_policies(
        self, p: Principal, *, cluster: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[BurstPolicyView]:
        raise NotImplementedError

    async def burst_policy(self, p: Principal, cluster: str, name: str) -> BurstPolicyView:
        raise NotImplementedError

    async def put_burst_policy(self, p: Principal, cluster: str, name: str, body: BurstPolicySpec) -> BurstPolicyView:
        raise NotImplementedError

    async def delete_burst_policy(self, p: Principal, cluster: str, name: str) -> None:
        raise NotImplementedError

    # --- watch ----------------------------------------------------------------------------------------------------
    def changes(self, p: Principal, kind: Watched, after: int | None = None) -> AsyncIterator[Change]:
        """Every change of that kind the principal may see, for ever; ``after=None`` starts now."""
        raise NotImplementedError
