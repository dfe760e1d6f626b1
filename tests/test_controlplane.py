"""The harness keeps its promises: what it starts is real, clusters know nothing of each other, and nothing stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import ControlPlanes, lack
from tests.controlplane import fixtures, toolchain
from tests.controlplane.api import ApiError, Object, until
from tests.controlplane.cluster import Cluster, CommandFailed
from tests.controlplane.keeper import Keeper
from tests.controlplane.layout import free_port
from tests.controlplane.parts import RELEASES, Parts
from tests.controlplane.postgres import Postgres

ROOT = Path(__file__).parent.parent
HOUR = "3600"


@pytest.fixture(scope="module")
def two(control_planes: ControlPlanes) -> Iterator[list[Cluster]]:
    with control_planes.fresh("one", "other") as clusters:
        yield clusters


@pytest.fixture
def cluster(two: list[Cluster]) -> Cluster:
    return two[0]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return [pid]  # it ended while we looked
    return [pid, *(one for child in told for one in family(int(child)))]


def namespace(cluster: Cluster, name: str) -> str:
    """A namespace in which pods can be created: its default service account is there."""
    cluster.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    until(lambda: cluster.api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"), what="the account")
    return name


class TestClusters:
    def test_two_clusters_are_strangers(self, two: list[Cluster]) -> None:
        """Neither trusts the other's certificate, nor takes its tokens, nor sees its objects."""
        one, other = two
        identities = {c.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"] for c in two}
        assert len(identities) == 2

        namespace(one, "only-here")
        assert other.api.find("/api/v1/namespaces/only-here") is None

        with pytest.raises(CommandFailed, match="certificate signed by unknown authority"):
            other.kubectl("get", "ns", "--server", one.server)

        token = one.token_for("default", "default")
        assert "system:serviceaccount:default:default" in one.kubectl(
            "auth", "whoami", kubeconfig=one.kubeconfig_for("default", "default")
        )
        with pytest.raises(CommandFailed, match=r"logged in to the server|Unauthorized"):
            other.kubectl("auth", "whoami", f"--token={token}", kubeconfig=unidentified(other))

    def test_a_service_account_has_its_own_rights_and_no_others(self, cluster: Cluster) -> None:
        where = namespace(cluster, "rights")
        cluster.kubectl("-n", where, "create", "role", "reader", "--verb=list", "--resource=pods")
        cluster.kubectl(
            "-n", where, "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={where}:default"
        )
        api = cluster.api_for(where, "default")
        try:
            assert api.list(f"/api/v1/namespaces/{where}/pods") == []
            with pytest.raises(ApiError, match="cannot list resource"):
                api.list(f"/api/v1/namespaces/{where}/secrets")
        finally:
            api.close()

    def test_a_pod_with_a_claim_on_a_published_gpu_gets_it_and_no_second_pod_does(self, cluster: Cluster) -> None:
        where = namespace(cluster, "claims")
        cluster.add_node("claims-1", labels={"zone": "x"})
        cluster.publish_gpus("claims-1", count=1)
        pods, claims = f"/api/v1/namespaces/{where}/pods", f"/apis/resource.k8s.io/v1/namespaces/{where}/resourceclaims"
        wanted = f"device.attributes['{fixtures.NVIDIA}'].uuid == '{fixtures.gpu_uuid('claims-1', 0)}'"

        def running(name: str) -> Object | None:
            pod = cluster.api.get(f"{pods}/{name}")
            return pod if pod["status"].get("phase") == "Running" else None

        for name in ("first", "second"):
            cluster.api.create(claims, fixtures.claim(name, selectors=[wanted]))
        cluster.api.create(pods, fixtures.pod("first", claims=["first"]))
        pod = until(lambda: running("first"), what="a running pod")
        assert pod is not None
        assert pod["spec"]["nodeName"] == "claims-1"
        results = cluster.api.get(f"{claims}/first")["status"]["allocation"]["devices"]["results"]
        assert [(r["driver"], r["pool"], r["device"]) for r in results] == [(fixtures.NVIDIA, "claims-1", "gpu-0")]

        def refusal() -> str | None:
            conditions = cluster.api.get(f"{pods}/second")["status"].get("conditions", [])
            return next(
                (c["message"] for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None
            )

        cluster.api.create(pods, fixtures.pod("second", claims=["second"]))
        assert "cannot allocate all claims" in str(until(refusal, what="the scheduler's refusal"))

        cluster.api.delete(f"{pods}/first")
        cluster.api.delete(f"{claims}/first")
        assert until(lambda: running("second"), what="the second pod running, when the first has gone")

    def test_pods_of_jobs_run_as_long_as_they_say(self, cluster: Cluster) -> None:
        """kwok plays completion: at once, or after the time in the pod's annotation."""
        where = namespace(cluster, "jobs")
        cluster.add_node("jobs-1")
        for name, notes in (("short", {}), ("long", {"kwok.lendmesh.dev/runs-for": "1h"})):
            cluster.api.create(f"/apis/batch/v1/namespaces/{where}/jobs", job(name, notes))

        def status(name: str) -> Object:
            return dict(cluster.api.get(f"/apis/batch/v1/namespaces/{where}/jobs/{name}")["status"])

        until(lambda: status("long").get("ready"), what="the long job's pod, ready")
        until(lambda: status("short").get("succeeded"), what="the short job's end")
        assert "succeeded" not in status("long")

    def test_a_chart_is_installed_and_uninstalled_by_a_real_helm(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "templates").mkdir()
        (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: tiny, version: 0.0.1}")
        (tmp_path / "templates" / "map.yaml").write_text(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: tiny}, data: {from: {{ .Release.Name }}}}"
        )
        where = namespace(cluster, "charts")
        cluster.helm("install", "mine", str(tmp_path), "-n", where, "--wait")
        assert cluster.api.get(f"/api/v1/namespaces/{where}/configmaps/tiny")["data"] == {"from": "mine"}
        cluster.helm("uninstall", "mine", "-n", where, "--wait")
        assert cluster.api.find(f"/api/v1/namespaces/{where}/configmaps/tiny") is None

    def test_a_part_that_crashed_can_be_started_again(self, two: list[Cluster]) -> None:
        other = two[1]
        identity = other.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
        other.stop_part("kube-apiserver")
        with pytest.raises(OSError, match=r"."):
            other.api.get("/api/v1/namespaces/kube-system")
        other.start_part("kube-apiserver")
        other.wait_ready()
        assert other.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"] == identity

    @pytest.mark.parametrize("which", [2, 4], ids=["apiserver", "scheduler"])
    def test_a_port_taken_at_the_last_moment_is_not_the_end(
        self, control_planes: ControlPlanes, monkeypatch: pytest.MonkeyPatch, which: int
    ) -> None:
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", 0))
            ports = [free_port() for _ in range(5)]
            ports[which] = squatter.getsockname()[1]
            monkeypatch.setattr("tests.controlplane.layout.free_port", lambda: ports.pop(0) if ports else free_port())
            with control_planes.fresh("late") as (cluster,):
                assert not cluster.keeper.exited()

    @pytest.mark.parametrize("release", RELEASES)
    def test_every_release_reports_its_version(self, control_planes: ControlPlanes, release: str) -> None:
        if release != control_planes.version and not built(release) and os.environ.get("LENDMESH_REQUIRE_ALL") != "1":
            lack(f"Kubernetes {release} is not built here: python -m tests.controlplane build --all")
        with control_planes.fresh("release", version=release) as (cluster,):
            assert cluster.api.get("/version")["gitVersion"] == f"v{RELEASES[release].version}"
            served = cluster.api.get("/apis/resource.k8s.io")["preferredVersion"]["version"]
            assert served == "v1"


class TestEndings:
    @pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
    def test_a_cluster_ends_with_the_process_that_started_it(
        self, control_planes: ControlPlanes, tmp_path: Path, ending: signal.Signals
    ) -> None:
        """However that one ends: no process and no directory is left."""
        control_planes.parts()
        starter = (
            "import sys, time; from pathlib import Path; from tests.controlplane.cluster import start_clusters;"
            "c = start_clusters(['doomed'], version=sys.argv[1], workdir=Path(sys.argv[2]));"
            "print(c[0].keeper.pid, flush=True); time.sleep(3600)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", starter, control_planes.version, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            pids = family(int(process.stdout.readline()))
            assert len(pids) == 6, "the keeper and five parts"
            assert list(tmp_path.iterdir())
            process.send_signal(ending)
        until(lambda: not any(map(alive, pids)), what="the end of all processes")
        until(lambda: not list(tmp_path.iterdir()), what="the end of the directory")

    def test_what_a_keeper_runs_ends_with_it_even_when_it_is_killed(self, tmp_path: Path) -> None:
        keeper = Keeper()
        pid = keeper.run("sleeper", ["sleep", HOUR], log=tmp_path / "log")
        os.kill(keeper.pid, signal.SIGKILL)
        until(lambda: not alive(pid), what="the end of the sleeper")
        keeper.close()

    def test_a_keeper_ends_orphans_that_left_their_process_group(self, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        with Keeper() as keeper:
            script = f"setsid sh -c 'echo $$ > {note}.new; mv {note}.new {note}; exec sleep {HOUR}' &"
            keeper.run("launcher", ["sh", "-c", script], log=tmp_path / "log")
            orphan = int(until(lambda: note.exists() and note.read_text(), what="the orphan's pid"))
            until(lambda: keeper.exited(), what="the launcher's exit")
            assert alive(orphan)
        assert not alive(orphan)

    def test_postgres_ends_with_its_keeper(self) -> None:
        with Postgres.start() as server:
            pids = family(server.keeper.pid)
            assert len(pids) > 3
            with server.database() as url, psycopg.connect(url.replace("+psycopg", "")) as session:
                assert session.execute("SELECT 1").fetchone() == (1,)
        assert not any(map(alive, pids))


class TestBuilding:
    def test_where_there_is_no_go_one_line_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LENDMESH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        with pytest.raises(toolchain.CannotBuild, match=r"\Ano Go toolchain ≥ 1\.26: [^\n]+\Z"):
            Parts().command("kwok")

    def test_two_processes_build_a_program_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second waits for the first and takes what it built; a failed build leaves one line and nothing else."""
        monkeypatch.setenv("LENDMESH_CACHE", str(tmp_path / "cache"))
        module = tmp_path / "module"
        module.mkdir()
        (module / "go.mod").write_text("module tiny\n\ngo 1.26\n")
        (module / "go.sum").write_text("")
        (module / "main.go").write_text('package main\n\nfunc main() { println("here") }\n')
        builder = (
            "import sys; from pathlib import Path; from tests.controlplane.toolchain import build;"
            "print(build(Path(sys.argv[1]), '.', 'tiny', version='1'))"
        )
        command = [sys.executable, "-c", builder, str(module)]
        both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
        told = [process.communicate() for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert told[0][0] == told[1][0]
        assert sum(b"built tiny" in err for _, err in told) == 1

        (module / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
        with pytest.raises(toolchain.CannotBuild, match=r"\Atiny 1 cannot be built: [^\n]*undefined[^\n]*\Z"):
            toolchain.build(module, ".", "tiny", version="1")
        assert sum(path.is_dir() for path in (tmp_path / "cache" / "bin").iterdir()) == 1

    def test_given_programs_are_used_only_for_the_release_they_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        apiserver = tmp_path / "kube-apiserver"
        apiserver.write_text("#!/bin/sh\necho Kubernetes v1.37.9\n")
        apiserver.chmod(0o755)
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
        monkeypatch.setattr(toolchain, "build", lambda *args, **kwargs: Path("built"))
        assert Parts("1.37").command("kube-apiserver") == (str(apiserver),)
        assert Parts("1.36", tell=lambda line: None).command("kube-apiserver") == ("built", "kube-apiserver")
        assert Parts("1.37").command("kube-scheduler") == ("built", "kube-scheduler")


def built(release: str) -> bool:
    return Parts(release).is_built("etcd")


def unidentified(cluster: Cluster) -> Path:
    """A kubeconfig that trusts the cluster and proves nothing."""
    body = json.loads(cluster.kubeconfig.read_text())
    body["users"][0]["user"] = {}
    path = cluster.directory / "kubeconfigs" / "unidentified.yaml"
    path.write_text(json.dumps(body))
    return path


def job(name: str, annotations: dict[str, str]) -> Object:
    pod = fixtures.pod(name)
    template = {"metadata": {"annotations": annotations}, "spec": pod["spec"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}}
