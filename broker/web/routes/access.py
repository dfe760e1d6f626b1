"""Access: tokens for people and programs, one-use tokens for clusters, and who you are."""

from broker.domain.access import ADMIN, Once
from broker.service.answers import Page
from broker.web.call import ANYBODY, OPEN, Call, Paging
from broker.web.routing import route
from broker.wire.access import (
    JoinTokenCreated,
    JoinTokenRequest,
    JoinTokenView,
    Me,
    TokenCreated,
    TokenRequest,
    TokenView,
)
from broker.wire.agents import Join, Joined

TAG = "Access"


async def get_me(call: Call) -> Me:
    """Who the broker thinks you are, and what you may do."""
    return await call.broker.me(call.who)


async def create_token(call: Call, *, body: TokenRequest, once: Once) -> TokenCreated:
    """Make a token for a person or a program; its secret is shown here and never again."""
    return await call.broker.create_token(call.who, body, once)


async def list_tokens(call: Call, *, query: Paging) -> Page[TokenView]:
    """List the tokens, without their secrets."""
    return await call.broker.list_tokens(call.who, cursor=query.cursor, limit=query.limit)


async def revoke_token(call: Call, *, token: str) -> TokenView:
    """Revoke a token; it is refused from now on."""
    return await call.broker.revoke_token(call.who, token)


async def create_join_token(call: Call, *, body: JoinTokenRequest, once: Once) -> JoinTokenCreated:
    """Make a one-use token with which one cluster may join.

    Its last 32 hex digits pin the broker's CA: the agent knows whom it talks to before it says anything.
    """
    return await call.broker.create_join_token(call.who, body, once)


async def list_join_tokens(call: Call, *, query: Paging) -> Page[JoinTokenView]:
    """List the join tokens, without their secrets."""
    return await call.broker.list_join_tokens(call.who, cursor=query.cursor, limit=query.limit)


async def revoke_join_token(call: Call, *, token: str) -> None:
    """Revoke a join token that was not used yet."""
    await call.broker.revoke_join_token(call.who, token)


async def join(call: Call, *, body: Join, once: Once) -> Joined:
    """Join the federation (agents); the one-use token in the body is the credential.

    The answer has the cluster's own credential, shown once. Repeat the call with the same Idempotency-Key and body
    when the answer got lost.
    """
    return await call.broker.join(body, once)


ROUTES = (
    route("GET", "/v1/me", get_me, needs=ANYBODY, tag=TAG),
    route("POST", "/v1/tokens", create_token, needs=ADMIN, tag=TAG, status=201),
    route("GET", "/v1/tokens", list_tokens, needs=ADMIN, tag=TAG),
    route("DELETE", "/v1/tokens/{token}", revoke_token, needs=ADMIN, tag=TAG, revokes=True),
    route("POST", "/v1/join-tokens", create_join_token, needs=ADMIN, tag=TAG, status=201),
    route("GET", "/v1/join-tokens", list_join_tokens, needs=ADMIN, tag=TAG),
    route("DELETE", "/v1/join-tokens/{token}", revoke_join_token, needs=ADMIN, tag=TAG),
    route("POST", "/v1/join", join, needs=OPEN, tag=TAG, status=201, revokes=True),
)
