"""Who is calling: a bearer credential, asked of the database once in a while.

A good credential is remembered by its SHA-256 (never by itself) for a few seconds, so that authentication costs a
dictionary look-up. Whatever is revoked through this process makes it forget everything at once, including the answers
that were on their way when it happened (``_epoch``); other replicas notice within the time a credential is remembered.
"""

import hashlib
import time
from collections.abc import Callable

from broker.domain.access import Principal
from broker.domain.errors import Unauthenticated
from broker.service.broker import Broker
from broker.web.call import ANYBODY, OPEN

_MAX_REMEMBERED = 10_000
_MAX_SECRET = 256
_PREFIXES = ("lmt_", "lmc_")


class Gate:
    """Turns credentials into principals."""

    def __init__(self, broker: Broker, *, remember_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._remember_s = remember_s
        self._monotonic = monotonic
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._epoch = 0

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
        if scheme.lower() != "bearer" or not secret.startswith(_PREFIXES) or len(secret) > _MAX_SECRET:
            raise Unauthenticated
        if not secret.isascii() or not secret.isprintable():
            raise Unauthenticated
        name = hashlib.sha256(secret.encode("ascii")).digest()
        now = self._monotonic()
        if (found := self._known.get(name)) is not None and now < found[1]:
            return found[0]
        epoch = self._epoch
        who = await self._broker.authenticate(secret)
        if epoch == self._epoch:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[name] = (who, now + self._remember_s)
        return who

    def forget(self) -> None:
        """Something was revoked: believe nobody without asking."""
        self._epoch += 1
        self._known.clear()
