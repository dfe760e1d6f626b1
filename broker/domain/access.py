"""Who is asking, and what they may do. Authorisation is on the object: every rule about *which* one is here.

A principal is a person or program with a token, or the agent of one cluster. Whoever may not see an object is told
that it isn't there; only what a token can never do (a missing scope, another cluster's name) is said openly.
"""

from dataclasses import dataclass

from broker.domain.errors import MissingScope, NotFound, NotYourCluster

READ, REQUEST, LEND, METRICS, ADMIN = "read", "request", "lend", "metrics", "admin"
AGENT = "agent"
"""The one scope no token can be given: it comes with a cluster's own credential."""
AGENT_SCOPES = frozenset({READ, REQUEST, LEND, AGENT})


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Whoever sent this request, as their credential proves it."""

    subject: str
    """``token:<id>`` or ``cluster:<name>``: stands in the log and in the audit."""
    tenant: str
    scopes: frozenset[str]
    cluster: str | None = None
    """Set for an agent: the only cluster it may speak for."""

    @property
    def admin(self) -> bool:
        return ADMIN in self.scopes

    def require(self, scope: str) -> None:
        """``MissingScope`` unless the principal has it; an administrator has all but the agent's."""
        if scope not in self.scopes and not (self.admin and scope != AGENT):
            raise MissingScope(scope)

    def agent_of(self) -> str:
        """The cluster this agent speaks for; ``MissingScope`` for anybody else."""
        self.require(AGENT)
        if self.cluster is None:
            raise MissingScope(AGENT)
        return self.cluster

    def sees(self, *, tenants: tuple[str, ...], clusters: tuple[str, ...] = ()) -> bool:
        """Whether an object of these tenants (and, for an agent, these clusters) is theirs to see."""
        if self.admin:
            return True
        if self.cluster is not None and self.cluster not in clusters:
            return False
        return self.tenant in tenants  # an agent's, too: its cluster's name may have been another tenant's before

    def must_see(self, what: str, name: str, *, tenants: tuple[str, ...], clusters: tuple[str, ...] = ()) -> None:
        """``NotFound`` unless ``sees``."""
        if not self.sees(tenants=tenants, clusters=clusters):
            raise NotFound(what, name)

    def may_speak_for(self, cluster: str) -> None:
        """``NotYourCluster`` when an agent names another cluster than its own."""
        if self.cluster is not None and self.cluster != cluster:
            raise NotYourCluster(named=cluster, own=self.cluster)


@dataclass(frozen=True, kw_only=True, slots=True)
class Once:
    """A POST that must have one effect, however often it is sent: its ``Idempotency-Key``."""

    key: str
    fingerprint: str
    """Of method, path and body; the same key with another fingerprint is refused."""
