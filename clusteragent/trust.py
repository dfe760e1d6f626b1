"""Believing the broker: what a lease's token says counts when the broker's key signed it, and not before."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from broker.wire.leases import DesiredLease, LeaseClaims
from broker.wire.signing import Unverified, verify_lease
from clusteragent.lender import Wish

log = structlog.get_logger("agent")


class Trust:
    """Whose word counts. ``keys`` are those at hand, ``fetch`` asks for newer ones."""

    def __init__(
        self,
        *,
        cluster: str,
        keys: Sequence[Mapping[str, Any]],
        fetch: Callable[[], Awaitable[list[Mapping[str, Any]]]],
    ) -> None:
        self._cluster, self._keys, self._fetch = cluster, list(keys), fetch

    async def wish(self, desired: DesiredLease) -> Wish:
        """A wish with what its token says, if it is signed by the broker and speaks of this very lease.

        Raises ``Unreachable`` when newer keys are needed and can't be had.
        """
        if desired.token is None:
            return Wish(desired)
        try:
            claims = await self._verified(desired.token)
        except Unverified as error:
            log.error("lease.unverified", lease=desired.id, error=str(error))
            return Wish(desired)
        if claims.jti != desired.id or claims.lease != desired.lease:
            log.error("lease.unverified", lease=desired.id, error="its token speaks of another lease")
            return Wish(desired)
        return Wish(desired, claims)

    async def _verified(self, token: str) -> LeaseClaims:
        try:
            return verify_lease(token, jwks=self._keys, now=None, audience=self._cluster)
        except Unverified:
            self._keys = list(await self._fetch())  # signed by a newer key, perhaps
            return verify_lease(token, jwks=self._keys, now=None, audience=self._cluster)
