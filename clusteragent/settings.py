"""Everything that can be set about an agent: type, unit, default and why.

Read once, in ``__main__``, from the environment (``LENDMESH_AGENT_BROKER_URL`` sets ``broker_url``); tests and the demo
construct it. A setting that is not given behaves like the default here, and an unknown one is refused: a typo in a
chart must not pass for a choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from broker.wire.base import Name

PREFIX = "LENDMESH_AGENT_"
PAUSE = "registry.k8s.io/pause:3.10"
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Settings(BaseModel):
    """How one agent runs. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: Name
    """This cluster's name in the federation; the broker holds the agent to the one its join token was made for."""
    broker_url: str
    """Where the broker is, e.g. ``https://broker.example:8443``."""
    broker_ca_file: Path | None = None
    """The broker's CA, PEM. Without it the join token's pin decides, or the system's own CAs when there is no pin."""
    join_token: SecretStr | None = None
    """One-use token; needed until the agent has its own credential, ignored afterwards."""
    join_token_file: Path | None = None

    lend: bool = True
    """Offer devices and hold leases as a lender. Without it the agent needs none of the rights to lend."""
    borrow: bool = True
    """Mirror leases as a borrower, serve CapacityRequests and BurstPolicies."""

    namespace: str = "lendmesh-system"
    """Where the agent's own Secret and ConfigMap are; the chart creates both, empty."""
    identity_file: Path | None = None
    """Out of a cluster: keep the identity in this file (mode 600) instead of the Secret."""
    kubeconfig: Path | None = None
    """Out of a cluster: how to reach it. In a cluster the service account is used."""
    context: str | None = None

    api_server_url: str | None = None
    """How borrowers reach this cluster's API server; default: as the agent reaches it."""
    placeholder_image: str = PAUSE
    """The image of the pod that asks the scheduler for the devices; it only has to sleep."""
    keep_placeholder: bool | None = None
    """Keep that pod while the lease lives. Default: only where Kubernetes is older than 1.36 (kube.md §4, KEP-4381)."""
    borrower_role: str = "lendmesh-borrower"
    """The ClusterRole that a borrower is bound to, in the lease's namespace only."""

    heartbeat: Seconds = 10
    """An advert at least this often; the broker takes silence for absence."""
    debounce: Seconds = 0.1
    """A change is advertised within this, and several changes in that time as one."""
    skew: Seconds = 5
    """e: how far clocks may be apart."""
    drain: Seconds = 30
    """D: how long borrowers' pods get to stop."""
    cooldown: Seconds = 2
    """Devices rest this long after a release: the driver unprepares them after the claim has gone (k8s 141471)."""
    credential: Annotated[int, Field(ge=600, le=86_400)] = 600
    """Life of a borrower's token, renewed at half of it; 600 is the least that TokenRequest gives."""
    calls: Annotated[int, Field(ge=1, le=512)] = 32
    """Calls to the API server at once, over all leases."""
    region: str | None = None
    """Where the cluster is, when neither policy nor node labels say so."""
    jurisdiction: str | None = None
    """Under whose law it is, when no policy says so."""
    provider: str | None = None
    log_level: str = "INFO"
    name_of_us: Annotated[str, Field(max_length=100)] = ""
    """What the broker shows as this agent's version; default: the package's."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Settings from ``LENDMESH_AGENT_*``; ``ValueError`` with one sentence per mistake."""
        given = {key.removeprefix(PREFIX).lower(): value for key, value in environ.items() if key.startswith(PREFIX)}
        return cls.model_validate({key: value for key, value in given.items() if value != ""})

    def token(self) -> str | None:
        """The join token, from wherever it was given."""
        if self.join_token is not None:
            return self.join_token.get_secret_value()
        return self.join_token_file.read_text().strip() if self.join_token_file else None
