"""Who is calling: a bearer credential becomes a principal, or the call ends here.

What can't be a credential of ours is refused before anybody is asked. Good ones are remembered by the service (by
their hash, until its log says that something was revoked), so asking again with every call costs next to nothing.
"""

from broker.domain.access import Principal
from broker.domain.errors import Unauthenticated
from broker.service.broker import Broker
from broker.web.call import ANYBODY, OPEN

_LONGEST = 256
_PREFIXES = ("lmt_", "lmc_")


class Gate:
    """Turns credentials into principals."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def admit(self, authorization: str | None, *, needs: str) -> Principal | None:
        """Who is calling, once it is clear that they may; ``Unauthenticated`` or ``MissingScope`` otherwise."""
        if needs == OPEN:
            return None
        who = await self.known(authorization)
        if needs != ANYBODY:
            who.require(needs)
        return who

    async def known(self, authorization: str | None) -> Principal:
        """Who is calling; ``Unauthenticated`` when the credential is none, or none any more."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith(_PREFIXES) or len(secret) > _LONGEST:
            raise Unauthenticated
        if not secret.isascii() or not secret.isprintable() or "." in secret:  # only join tokens have a part after one
            raise Unauthenticated
        return await self._broker.authenticate(secret)
