"""A small federation to drive from outside: a broker, clusters with the chart installed, an agent process for each.

Everything is what a user would have: `lendmesh broker serve` and `lendmesh agent run` as processes, the agent under
exactly the rights its chart gives its service account, the command for every question. Where kwok plays the nodes, the
chart's own pods only look as if they ran; so the agent runs beside the cluster, as that pod would.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from tests.controlplane.cluster import Cluster
from tests.controlplane.keeper import Keeper

T = TypeVar("T")
Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
AGENT_CHART = ROOT / "deploy" / "charts" / "clusteragent"
SYSTEM = "lendmesh-system"
ACCOUNT = "lendmesh-agent"
TENANTS = {"a": "research", "b": "platform"}


class CommandEnded(RuntimeError):
    """A command ended with another code than expected; the text is what it printed."""


def eventually(look: Callable[[], T | None], *, what: str, within: float = 60.0) -> T:
    """What `look` finds, as soon as it finds something that is true."""
    until = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"not seen within {within:.0f} s: {what}")
        time.sleep(0.05)


class World:
    """A broker and its clusters. `with World(...) as world:` ends every process it started."""

    def __init__(self, clusters: Sequence[Cluster], *, broker_env: Mapping[str, str] | None = None) -> None:
        self.clusters = {cluster.name: cluster for cluster in clusters}
        self.directory = Path(tempfile.mkdtemp(prefix="lendmesh-world-"))
        self.keeper = Keeper(removes=[self.directory])
        self.data = self.directory / "broker"
        self._broker_env = {"LENDMESH_BROKER_PORT": "0", **(broker_env or {})}
        self._agent_env: dict[str, dict[str, str]] = {}
        self._port: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for log in sorted(self.directory.glob("*.log")):
                print(f"--- {log.name}\n{_tail(log)}")
        self.keeper.close(keep_directories=bool(os.environ.get("LENDMESH_KEEP")))

    # -- the broker -----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return (self.data / "url").read_text().strip()

    @property
    def token(self) -> str:
        return (self.data / "admin-token").read_text().strip()

    @property
    def ca(self) -> Path:
        return self.data / "ca.pem"

    def start_broker(self) -> int:
        """Start it, or start it again on the same address and data; return its pid when it is ready."""
        url_file = self.data / "url"
        url_file.unlink(missing_ok=True)
        env = dict(self._broker_env)
        if self._port is not None:
            env["LENDMESH_BROKER_PORT"] = self._port
        argv = [sys.executable, "-m", "lendmesh", "broker", "serve", "--data", str(self.data)]
        pid = self.keeper.run(
            "broker", argv, log=self.directory / "broker.log", env=env, cwd=str(ROOT), stop_signal=signal.SIGTERM
        )
        eventually(lambda: url_file.exists() or self._dead("broker"), what="the broker's address")
        self._port = self.url.rsplit(":", 1)[1]
        return pid

    def kill_broker(self) -> None:
        self.keeper.stop("broker", with_signal=signal.SIGKILL)

    # -- clusters and their agents --------------------------------------------------------------------------------

    def join(self, name: str, *, values: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None) -> None:
        """Install the chart in a cluster and start its agent, under the rights of the chart's account."""
        cluster = self.clusters[name]
        secret = self.cli("cluster", "join-token", name, "--tenant", TENANTS.get(name, name)).strip()
        given = {
            "cluster": {"name": name},
            "broker": {"url": self.url, "joinToken": {"value": secret}},
            **(values or {}),
        }
        path = self.directory / f"values-{name}.yaml"
        path.write_text(yaml.safe_dump(given))
        cluster.helm("install", "lendmesh", str(AGENT_CHART), "-n", SYSTEM, "--create-namespace", "-f", str(path))
        token_file = self.directory / f"join-token-{name}"
        token_file.write_text(secret)
        self._agent_env[name] = {
            "LENDMESH_AGENT_CLUSTER": name,
            "LENDMESH_AGENT_BROKER_URL": self.url,
            "LENDMESH_AGENT_JOIN_TOKEN_FILE": str(token_file),
            "LENDMESH_AGENT_KUBECONFIG": str(cluster.kubeconfig_for(SYSTEM, ACCOUNT, seconds=4 * 3600)),
            "LENDMESH_AGENT_NAMESPACE": SYSTEM,
            "LENDMESH_AGENT_COOLDOWN": "0.2",
            **(env or {}),
        }
        self.start_agent(name)
        eventually(lambda: self.cluster_state(name) == "Ready", what=f"cluster {name}, Ready at the broker")

    def start_agent(self, name: str) -> int:
        argv = [sys.executable, "-m", "lendmesh", "agent", "run"]
        return self.keeper.run(
            f"agent-{name}", argv, log=self.directory / f"agent-{name}.log", env=self._agent_env[name], cwd=str(ROOT)
        )

    def kill_agent(self, name: str) -> None:
        """As the kernel would: nothing is said, nothing is tidied."""
        self.keeper.stop(f"agent-{name}", with_signal=signal.SIGKILL)

    def cluster_state(self, name: str) -> str | None:
        found = [cluster for cluster in self.get("/v1/clusters")["items"] if cluster["name"] == name]
        return found[0]["state"] if found else None

    # -- the command ----------------------------------------------------------------------------------------------

    def try_cli(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `lendmesh …` as the administrator."""
        env = {**os.environ, "LENDMESH_URL": self.url, "LENDMESH_TOKEN": self.token, "LENDMESH_CA": str(self.ca)}
        return subprocess.run(
            [sys.executable, "-m", "lendmesh", *words],
            env=env, cwd=ROOT, input=stdin or "", capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def cli(self, *words: str, code: int = 0, stdin: str | None = None) -> str:
        """What the command printed; `CommandEnded` when it ended otherwise."""
        done = self.try_cli(*words, stdin=stdin)
        if done.returncode != code:
            raise CommandEnded(f"lendmesh {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def ask(self, *words: str, code: int = 0) -> Any:
        """What the command says as JSON."""
        return json.loads(self.cli(*words, "-o", "json", code=code))

    def request(self, *options: str, cluster: str = "a", code: int = 0) -> Object:
        """Ask for devices and follow to the end; the request as it stands then."""
        return dict(self.ask("request", "--cluster", cluster, *options, code=code))

    # -- the API, for looking again and again: a command takes a second to start ----------------------------------

    def get(self, path: str) -> Any:
        """What the broker answers to a GET."""
        tls = ssl.create_default_context(cafile=str(self.ca))
        asked = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(asked, context=tls, timeout=30) as answer:
            return json.load(answer)

    def lease(self, lease_id: str) -> Object:
        return dict(self.get(f"/v1/leases/{lease_id}"))

    def leases(self) -> list[Object]:
        return list(self.get("/v1/leases")["items"])

    def request_now(self, request_id: str) -> Object:
        return dict(self.get(f"/v1/requests/{request_id}"))

    def requests(self) -> list[Object]:
        return list(self.get("/v1/requests")["items"])

    def offered_count(self, cluster: str = "b") -> int:
        """How many devices a cluster offers, as borrowers see it."""
        return sum(offer["devices"] for offer in self.get("/v1/offers")["items"] if offer["cluster"] == cluster)

    def _dead(self, name: str) -> bool:
        if name in (ended := self.keeper.exited()):
            raise RuntimeError(f"{name} ended with {ended[name]}:\n{_tail(self.directory / f'{name}.log')}")
        return False


def _tail(log: Path, lines: int = 60) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
