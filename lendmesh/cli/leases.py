"""One lease: ``lease show | token | verify | return | renew | reclaim | revoke | kubeconfig``."""

import argparse
import base64
import json
import sys
from datetime import datetime

from broker.kit.clock import utc_now
from broker.kit.durations import format_duration
from broker.wire.leases import LeaseClaims, LeaseState, LeaseView, Reclaim, Renewal, Revocation
from broker.wire.signing import Unverified, verify_lease
from lendmesh import show
from lendmesh.cli import MISUSED, NO, OK, Failed
from lendmesh.cli.common import checked, client, cluster, read_text
from lendmesh.client import Client


async def show_lease(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        lease = await broker.get(LeaseView, f"/v1/leases/{arguments.id}")
    if arguments.output != "table":
        show.emit(lease, output=arguments.output)
        return OK
    out = show.console()
    out.print(show.leases([lease]))
    out.print(show.devices(lease, title="\nDevices"))
    terms = lease.terms
    out.print(
        f"\nTerms: at most {format_duration(terms.max_duration)}; the lender may take the devices back with "
        f"{format_duration(terms.reclaim_notice)} notice, not before {format_duration(terms.minimum_runtime)} of use."
    )
    if lease.confidential is not None:
        out.print(
            f"Confidential: {lease.confidential.tee} with GPU mode {lease.confidential.gpu}: declared, not proved."
        )
    if lease.message:
        out.print(lease.message)
    return OK


async def token(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        lease = await broker.get(LeaseView, f"/v1/leases/{arguments.id}")
    if lease.token is None:
        raise Failed(f"{lease.id} is {lease.state.value}: a lease is signed when it becomes Active")
    print(lease.token)
    return OK


def verify(arguments: argparse.Namespace) -> int:
    """Offline: nothing but the two files."""
    signed = read_text(arguments.file).strip()
    try:
        jwks = json.loads(read_text(arguments.jwks))["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"{arguments.jwks} is not a key set (RFC 7517)", code=MISUSED) from error
    now = utc_now()
    if arguments.at:
        try:
            now = datetime.fromisoformat(arguments.at)
        except ValueError as error:
            raise Failed(f"{arguments.at!r} is not a time as RFC 3339 has it", code=MISUSED) from error
        if now.tzinfo is None:
            raise Failed(f"{arguments.at!r} has no time zone; write it like 2026-11-23T12:00:00Z", code=MISUSED)
    try:
        claims = verify_lease(signed, jwks=jwks, now=now)
    except Unverified as error:
        print(f"NOT VERIFIED: {error}", file=sys.stderr)
        return NO
    if arguments.output != "table":
        show.emit(claims, output=arguments.output)
        return OK
    _print_claims(claims)
    return OK


def _print_claims(claims: LeaseClaims) -> None:
    lease = claims.lease
    ends = datetime.fromtimestamp(claims.exp, tz=utc_now().tzinfo)
    out = show.console()
    out.print(f"[green]VERIFIED[/] {claims.jti}, signed by {claims.iss}")
    out.print(
        f"{lease.lender} lends {len(lease.devices)} × {lease.kind.model} to {lease.borrower} ({lease.tenant}) "
        f"at {show.money(lease.price.micros)} a device-hour until {ends:%Y-%m-%d %H:%M:%S} UTC ({show.when(ends)})"
    )
    out.print(show.devices(lease))


async def return_lease(arguments: argparse.Namespace) -> int:
    async with client(arguments) as broker:
        return await _ending(broker, arguments, await broker.post(LeaseView, f"/v1/leases/{arguments.id}/return"))


async def reclaim_lease(arguments: argparse.Namespace) -> int:
    body = checked(Reclaim, {"reason": arguments.reason})
    async with client(arguments) as broker:
        return await _ending(
            broker, arguments, await broker.post(LeaseView, f"/v1/leases/{arguments.id}/reclaim", body)
        )


async def revoke_lease(arguments: argparse.Namespace) -> int:
    body = checked(Revocation, {"reason": arguments.reason or "revoked by an administrator"})
    async with client(arguments) as broker:
        return await _ending(broker, arguments, await broker.post(LeaseView, f"/v1/leases/{arguments.id}/revoke", body))


async def renew_lease(arguments: argparse.Namespace) -> int:
    body = checked(Renewal, {"duration": arguments.duration})
    async with client(arguments) as broker:
        lease = await broker.post(LeaseView, f"/v1/leases/{arguments.id}/renew", body)
    print(f"{lease.id} now ends {show.when(lease.expires_at)} ({lease.expires_at:%Y-%m-%d %H:%M:%S} UTC)")
    return OK


async def _ending(broker: Client, arguments: argparse.Namespace, lease: LeaseView) -> int:
    out = show.console()
    out.print(f"{lease.id} is {lease.state.value}" + (f": {lease.message}" if lease.message else ""))
    if not arguments.follow or lease.state is LeaseState.ENDED:
        return OK
    async for _, current in broker.watch(LeaseView, "/v1/leases/watch", after=lease.revision):
        if current.id == lease.id:
            out.print(f"{current.id} is {current.state.value}")
            if current.state is LeaseState.ENDED:
                break
    return OK


async def kubeconfig(arguments: argparse.Namespace) -> int:
    from clusteragent.kube.interface import SECRETS, KubeError, NotFound

    kube = await cluster(arguments.kubeconfig)
    try:
        secret = await kube.get(SECRETS, f"{arguments.id}-kubeconfig", arguments.namespace)
    except NotFound as error:
        raise Failed(
            f"there is no Secret {arguments.id}-kubeconfig in namespace {arguments.namespace} of this cluster; "
            "is this the borrower's cluster, and is the lease mirrored (`lendmesh lease show`)?"
        ) from error
    except (KubeError, OSError) as error:
        raise Failed(f"the cluster doesn't give it: {error}") from error
    finally:
        await kube.close()
    sys.stdout.write(base64.b64decode(secret["data"]["kubeconfig"]).decode())
    return OK
