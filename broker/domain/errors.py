"""Everything the broker refuses, as one tree. The text of a refusal is the sentence the person who asked reads.

::

    Refusal
    ├── Unauthenticated             no credential, or one that isn't known, has expired or was revoked
    ├── Forbidden                   known, but not allowed
    │   ├── MissingScope            the token can't do this
    │   └── NotYourCluster          a message that speaks for another cluster than its credential's
    ├── NotFound                    not there, or not yours: the answer is the same
    ├── Conflict                    the world has moved on, or never was like that
    │   ├── IllegalTransition       the lease's life has no such step
    │   ├── StaleVersion            somebody else changed it first
    │   ├── DeviceTaken             a device is in another live lease
    │   ├── LenderUnavailable       the lender may not lend at this moment
    │   ├── BudgetExhausted         the burst policy's budget can't hold the worst case
    │   ├── AlreadyThere            the name is taken
    │   └── OwnedByObject           the thing follows an object in a cluster: change it there
    ├── Gone                        it was there and isn't any more
    │   ├── TooOld                  the event log doesn't reach back so far: list again
    │   └── WasSilent               the broker gave this agent up for a while: say how everything stands, list again
    ├── Invalid                     what was sent can't be meant like that
    │   ├── Malformed               it doesn't have the shape it should
    │   ├── BadSelector             the CEL expression doesn't compile
    │   ├── BadTerms                duration, price or tiers don't fit the policy or the lease
    │   ├── BadCursor               this isn't a cursor of this list
    │   ├── UntrustedMessage        the signature or the key is no good
    │   └── IdempotencyKeyReused    the same key came with another body
    └── Busy                        not now
        ├── Overloaded              too many writes are waiting
        └── ShuttingDown            the broker is going

A family stands for an HTTP status (``broker/web`` has the one table); a class's name becomes the problem's ``type``.
Nothing secret goes into a refusal: what a person sent is quoted at most in part.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class Refusal(Exception):
    """The broker says no, and why."""

    title: ClassVar[str] = "Refused"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[dict[str, Any]] = (),
        reasons: Sequence[dict[str, Any]] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        """The sentence for the person who asked."""
        self.errors = list(errors)
        """For input: where (``pointer``) and what (``detail``)."""
        self.reasons = list(reasons)
        """For a request that could not be placed."""
        self.retry_after_s = retry_after_s


class Unauthenticated(Refusal):
    title = "Who are you?"

    def __init__(self, detail: str = "This needs a valid token: Authorization: Bearer <token>.") -> None:
        super().__init__(detail)


class Forbidden(Refusal):
    title = "Not allowed"


class MissingScope(Forbidden):
    title = "The token can't do this"

    def __init__(self, scope: str) -> None:
        if scope == "agent":
            super().__init__("Only a cluster's agent may do this, with the credential it was given when it joined.")
        else:
            super().__init__(f"This needs a token with the scope {scope!r}; ask an administrator for one.")


class NotYourCluster(Forbidden):
    title = "Not your cluster"

    def __init__(self, *, named: str, own: str | None) -> None:
        whose = f"cluster {own!r}" if own else "no cluster"
        super().__init__(f"This credential speaks for {whose}, but the message speaks for {named!r}.")


class NotFound(Refusal):
    title = "Not found"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"There is no {what} {name[:80]!r} that you may see.")


class Conflict(Refusal):
    title = "In conflict with how things stand"


_DONE = {"Renew": "renewed", "Drain": "ended", "Reclaim": "taken back", "Release": "released", "Reserve": "reserved"}


class IllegalTransition(Conflict):
    title = "A lease can't do that now"

    def __init__(self, lease: str, state: str, event: str) -> None:
        super().__init__(f"Lease {lease} is {state.lower()}; it can't be {_DONE.get(event, event.lower())} now.")
        self.state, self.event = state, event


class StaleVersion(Conflict):
    title = "Changed in between"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"The {what} {name} was changed by somebody else in between; look again and repeat.")


class DeviceTaken(Conflict):
    title = "A device is taken"

    def __init__(self, detail: str = "A device of this placement is in another live lease.") -> None:
        super().__init__(detail)


class LenderUnavailable(Conflict):
    title = "The lender can't lend now"

    def __init__(self, cluster: str) -> None:
        super().__init__(f"Cluster {cluster} may not lend at this moment: it is silent, recovering, unsafe or revoked.")


class BudgetExhausted(Conflict):
    title = "The budget can't hold this"


class AlreadyThere(Conflict):
    title = "The name is taken"


class OwnedByObject(Conflict):
    title = "It follows an object in a cluster"


class Gone(Refusal):
    title = "Gone"


class TooOld(Gone):
    title = "Too far back"

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(
            f"The log reaches back to revision {oldest}, and you asked for what came after {after}: "
            f"list again, then watch from the revision of that answer."
        )


class WasSilent(Gone):
    title = "You were silent"

    def __init__(self) -> None:
        super().__init__(
            "Nothing was heard of this cluster for too long, so its leases count as orphaned: report how every lease "
            "stands (resync), list what is desired, and watch from there."
        )


class Invalid(Refusal):
    title = "This can't be meant like that"


class Malformed(Invalid):
    title = "Not the right shape"


class BadSelector(Invalid):
    title = "The selector doesn't compile"


class BadTerms(Invalid):
    title = "These terms don't fit"


class BadCursor(Invalid):
    title = "Not a cursor of this list"

    def __init__(self) -> None:
        super().__init__("This cursor doesn't belong to this list; start again without one.")


class UntrustedMessage(Invalid):
    title = "The signature is no good"


class IdempotencyKeyReused(Invalid):
    title = "Idempotency-Key reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key came before with another request: a new request needs a new key, "
            "a retry the same body."
        )


class Busy(Refusal):
    title = "Not now"


class Overloaded(Busy):
    title = "Too busy"

    def __init__(self) -> None:
        super().__init__(
            "More writes are waiting than the broker can promise to keep; try again shortly.", retry_after_s=1
        )


class ShuttingDown(Busy):
    title = "Shutting down"

    def __init__(self) -> None:
        super().__init__("The broker is shutting down; try again shortly.", retry_after_s=2)
