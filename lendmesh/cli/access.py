"""Who may do what: ``login``, ``whoami``, ``token …``, ``cluster …``."""

import argparse
import json

from broker.wire.access import (
    JoinTokenCreated,
    JoinTokenRequest,
    Me,
    TokenCreated,
    TokenRequest,
    TokenView,
)
from lendmesh import show
from lendmesh.cli import OK
from lendmesh.cli.common import checked, client
from lendmesh.client import Client
from lendmesh.context import find, save
from lendmesh.grid import Column, Grid


async def login(arguments: argparse.Namespace) -> int:
    context = find(url=arguments.url, token_file=arguments.token_file, ca=arguments.ca)
    async with Client(context) as broker:
        me = await broker.get(Me, "/v1/me")
    path = save(context)
    print(f"You are {me.subject} of tenant {me.tenant} ({', '.join(me.scopes)}); remembered in {path}")
    return OK


async def whoami(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        me = await broker.get(Me, "/v1/me")
    if arguments.output != "table":
        show.emit(me, output=arguments.output)
    else:
        print(f"{me.subject} of tenant {me.tenant}; may: {', '.join(me.scopes)}")
    return OK


async def keys(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        print(json.dumps(await broker.call("GET", "/.well-known/jwks.json"), indent=2))
    return OK


async def create_token(arguments: argparse.Namespace) -> int:
    body = checked(
        TokenRequest,
        {
            "name": arguments.name,
            "tenant": arguments.tenant,
            "scopes": arguments.scope,
            "lifetime": arguments.lifetime,
        },
    )
    async with client(arguments) as broker:
        token = await broker.post(TokenCreated, "/v1/tokens", body)
    if arguments.output != "table":
        show.emit(token, output=arguments.output)
    else:
        print(token.secret)
        show.console(stderr=True).print(
            f"[dim]{token.id}, until {token.expires_at:%Y-%m-%d}; this is the one time it is shown[/]"
        )
    return OK


async def tokens(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        views = await broker.every(TokenView, "/v1/tokens")
    if arguments.output != "table":
        show.emit(views, output=arguments.output)
        return OK
    table = Grid(
        "TOKEN",
        "NAME",
        "TENANT",
        "SCOPES",
        Column("CREATED", drop=2),
        Column("EXPIRES", drop=1),
        Column("REVOKED", drop=3),
    )
    for token in views:
        table.add(
            token.id,
            token.name,
            token.tenant,
            " ".join(token.scopes),
            show.when(token.created_at),
            show.when(token.expires_at),
            show.when(token.revoked_at),
        )
    show.console().print(table)
    return OK


async def revoke_token(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        await broker.call("DELETE", f"/v1/tokens/{arguments.id}")
    print(f"{arguments.id} is revoked")
    return OK


async def join_token(arguments: argparse.Namespace) -> int:
    body = checked(
        JoinTokenRequest,
        {
            "cluster": arguments.cluster,
            "tenant": arguments.tenant,
            "lifetime": arguments.lifetime,
        },
    )
    async with client(arguments) as broker:
        token = await broker.post(JoinTokenCreated, "/v1/join-tokens", body)
    if arguments.output != "table":
        show.emit(token, output=arguments.output)
    else:
        print(token.secret)
        show.console(stderr=True).print(
            f"[dim]one use, for cluster {token.cluster}, until {token.expires_at:%H:%M:%S} UTC; "
            "give it to the agent's chart[/]"
        )
    return OK


async def remove_cluster(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        await broker.call("DELETE", f"/v1/clusters/{arguments.cluster}")
    print(f"{arguments.cluster} is no longer a member")
    return OK
