"""A lease becomes bytes, and bytes become a lease again: one way to sign it, one way to believe it.

Whoever has the key set can verify a lease with no network: the broker's word is checked at the edge, by the lender, the
borrower and anybody they show it to (RFC 7519, with the fixed type and algorithm RFC 8725 asks for).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from broker.kit import jose
from broker.wire.leases import LeaseClaims


class Unverified(Exception):
    """This is not a lease to rely on; the text says why."""


def sign_lease(head: Mapping[str, object], body: str, key: jose.SigningKey) -> str:
    """The compact JWS of a lease.

    ``head`` has the claims of ``LeaseClaims`` but the last; ``body`` is that last one, a ``LeaseBody`` as the JSON that
    is stored: what is signed are those bytes, not a second rendering of them.
    """
    claims = json.dumps(head, separators=(",", ":"))
    return key.sign(f'{claims[:-1]},"lease":{body}}}'.encode(), typ=jose.LEASE)


def verify_lease(
    token: str, *, jwks: Sequence[Mapping[str, Any]], now: datetime | None, audience: str | None = None
) -> LeaseClaims:
    """The claims of a lease that is signed by one of ``jwks`` and in force at ``now`` (None: don't look at the time).

    ``audience`` is the cluster on whose behalf is asked: the lease must be meant for it. Raises ``Unverified``.
    """
    try:
        payload = jose.verify(token.strip(), typ=jose.LEASE, jwks=jwks, limit=jose.MAX_LEASE_BYTES)
        claims = LeaseClaims.model_validate_json(payload)
    except jose.BadSignature as error:
        raise Unverified(str(error)) from error
    except ValidationError as error:
        raise Unverified("the signature is good, but what was signed is not a lease of this version") from error
    lease = claims.lease
    if claims.jti != lease.id or claims.sub != lease.borrower or set(claims.aud) != {lease.lender, lease.borrower}:
        raise Unverified("the lease contradicts itself: its id or its parties differ inside")
    if audience is not None and audience not in claims.aud:
        raise Unverified(f"this lease is between {' and '.join(claims.aud)}, not for {audience}")
    if now is not None:
        seconds = now.timestamp()
        if seconds >= claims.exp:
            raise Unverified(f"the lease ended at {datetime.fromtimestamp(claims.exp, tz=UTC):%Y-%m-%d %H:%M:%S} UTC")
        if seconds < claims.nbf:
            raise Unverified(f"the lease begins at {datetime.fromtimestamp(claims.nbf, tz=UTC):%Y-%m-%d %H:%M:%S} UTC")
    return claims
