"""The main job on two real control planes, driven as its users would: commands, kubectl, nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.controlplane.cluster import CommandFailed
from tests.e2e.conftest import OpenWorld, pod
from tests.e2e.looks import claims_of, holds, in_claims, left_behind, phase
from tests.e2e.world import World, eventually

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(900)]
H100 = "device.attributes['gpu.nvidia.com'].productName.contains('H100')"
EIGHT = ("--count", "8", "--selector", H100, "--duration", "1h", "--price-cap", "3.00")


def ended(world: World, lease: str) -> bool:
    return bool(world.lease(lease)["state"] == "Ended")


@pytest.mark.parametrize("version", ["1.36", "1.37"])
def test_a_loan_from_request_to_return(open_world: OpenWorld, version: str, tmp_path: Path) -> None:
    """Asked for, held, signed, mirrored, used by the borrower's pod, given back: both clusters as before."""
    with open_world(version=version) as world:
        a, b = world.clusters["a"], world.clusters["b"]
        b.apply(pod("local", devices=2))
        eventually(lambda: world.offered_count() == 12, what="16 devices, 2 in use, 2 kept back: 12 on offer")

        request = world.request(*EIGHT)
        lease = world.lease(request["lease"])
        leased = {f"{one['driver']}/{one['pool']}/{one['name']}" for one in lease["devices"]}
        assert request["step"] == "mirrored"
        assert request["placement"]["cluster"] == "b"
        assert len(leased) == 8
        assert world.offered_count() == 4

        # Both clusters hold it; the owning claims have exactly the leased devices, with no placeholder left.
        owning, remote = claims_of(b, lease["id"]), claims_of(a, lease["id"])
        namespace = owning[0]["metadata"]["namespace"]
        assert set().union(*map(holds, owning)) == leased
        assert sum(len(holds(claim)) for claim in remote) == 8
        eventually(lambda: b.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"] == [], what="no placeholder pods")
        for cluster, role in ((a, "borrower"), (b, "lender")):
            columns = cluster.kubectl("get", "devicelease", "-A")
            assert lease["id"] in columns
            assert role in columns.lower()

        # The signed lease verifies offline; one changed letter, and it doesn't.
        signed, keys = tmp_path / "lease.jws", tmp_path / "jwks.json"
        signed.write_text(world.cli("lease", "token", lease["id"]))
        keys.write_text(world.cli("keys"))
        assert "VERIFIED" in world.cli("lease", "verify", str(signed), "--jwks", str(keys))
        signed.write_text(signed.read_text().replace(".", ".e", 1))
        assert "NOT VERIFIED" in world.try_cli("lease", "verify", str(signed), "--jwks", str(keys)).stderr

        # B's own pods get what is left, and no more.
        b.apply(pod("greedy", devices=7))
        b.apply(pod("modest", devices=2))
        eventually(lambda: phase(b, "modest") == "Running", what="a home pod on devices that are not lent")
        assert phase(b, "greedy") == "Pending"

        # The borrower reaches that namespace, and nothing else.
        access = tmp_path / "borrower.kubeconfig"
        access.write_text(world.cli("lease", "kubeconfig", lease["id"], "--kubeconfig", str(a.kubeconfig)))
        work = borrowers_pod(owning[0]["metadata"]["name"])
        b.kubectl("apply", "-n", namespace, "-f", "-", stdin=work, kubeconfig=access)
        eventually(lambda: phase(b, "work", namespace) == "Running", what="the borrower's pod on the leased devices")
        for words in (("get", "pods", "-n", "home"), ("get", "nodes"), ("get", "secrets", "-n", namespace)):
            with pytest.raises(CommandFailed, match="forbidden"):
                b.kubectl(*words, kubeconfig=access)
        assert base64.b64encode(access.read_bytes())[:60] not in (world.data / "broker.db").read_bytes()
        assert b"client-certificate" not in access.read_bytes()

        # Returned: drained, released, and the pod that waited at home runs.
        # (The modest one goes first: the lease may have been of both nodes, and the greedy one needs most of one.)
        b.kubectl("delete", "pod", "modest", "-n", "home")
        b.kubectl("delete", "resourceclaim", "modest", "-n", "home")
        world.cli("lease", "return", lease["id"], "--follow")
        eventually(lambda: phase(b, "greedy") == "Running", what="the home pod that waited for the devices")
        for cluster in (a, b):
            eventually(lambda cluster=cluster: not left_behind(cluster, lease["id"]), what="nothing left behind")
        assert len(in_claims(b)) == len(set(in_claims(b)))
        assert world.requests()[0]["state"] == "Closed"


def borrowers_pod(claim: str) -> str:
    """What a borrower may run: restricted, and with the held claim."""
    return json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "work"},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "automountServiceAccountToken": False,
            "containers": [{
                "name": "work", "image": "work", "resources": {"claims": [{"name": "devices"}]},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }],
            "resourceClaims": [{"name": "devices", "resourceClaimName": claim}],
        },
    })  # fmt: skip


@pytest.mark.parametrize("version", ["1.36", "1.37"])
def test_a_lease_expires_though_the_broker_is_dead(open_world: OpenWorld, version: str) -> None:
    """Both agents stop by themselves; home gets its devices, and the broker learns of it when it is back."""
    with open_world(
        version=version, broker_env={"LENDMESH_BROKER_SKEW": "1s"}, agent_env={"LENDMESH_AGENT_SKEW": "1"}
    ) as world:
        a, b = world.clusters["a"], world.clusters["b"]
        eventually(lambda: world.offered_count() == 14, what="14 devices on offer")
        request = world.request("--count", "14", "--duration", "8s", "--price-cap", "3.00")
        b.apply(pod("waiting", devices=8))
        world.kill_broker()

        eventually(lambda: phase(b, "waiting") == "Running", what="the home pod, after the lease has expired")
        for cluster in (a, b):
            eventually(lambda cluster=cluster: not left_behind(cluster, request["lease"]), what="nothing left behind")

        world.start_broker()
        eventually(lambda: ended(world, request["lease"]), what="the broker knows that the lease has ended")
        assert world.lease(request["lease"])["ending"] == "expired"
        eventually(lambda: world.offered_count() == 6, what="16 devices, 8 in use, 2 kept back: 6 on offer")


def test_more_than_32_devices_are_several_claims_and_all_or_none(open_world: OpenWorld) -> None:
    """A claim holds at most 32 devices and a pod sits on one node; a lease may be larger than both."""
    with open_world(nodes=5) as world:
        b = world.clusters["b"]
        eventually(lambda: world.offered_count() == 38, what="40 devices less 2")
        request = world.request("--count", "36", "--duration", "1h", "--price-cap", "3.00")
        lease = request["lease"]
        assert len(claims_of(b, lease)) >= 2
        assert sum(len(holds(claim)) for claim in claims_of(b, lease)) == 36
        assert len(in_claims(b)) == len(set(in_claims(b))) == 36
        world.cli("lease", "return", lease, "--follow")
        eventually(lambda: in_claims(b) == [], what="no device in any claim")


def test_only_devices_that_are_really_free_are_offered(open_world: OpenWorld) -> None:
    """Allocated, tainted, stale and half-published devices are not on offer; when they are back, so is the offer."""
    with open_world() as world:
        b = world.clusters["b"]
        eventually(lambda: world.offered_count() == 14, what="16 less 2")
        b.apply(pod("local", devices=3, node="b-1"))
        eventually(lambda: world.offered_count() == 11, what="3 are allocated")

        path = "/apis/resource.k8s.io/v1/resourceslices"
        slice_ = next(one for one in b.api.get(path)["items"] if one["spec"]["nodeName"] == "b-2")
        healthy = json.dumps(slice_["spec"])

        def publish(spec: dict[str, object]) -> None:
            now = b.api.get(f"{path}/{slice_['metadata']['name']}")
            b.api.replace(f"{path}/{slice_['metadata']['name']}", {**now, "spec": spec})

        tainted = json.loads(healthy)
        tainted["devices"][0]["taints"] = [{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}]
        publish(tainted)
        eventually(lambda: world.offered_count() == 10, what="one is tainted")

        incomplete = json.loads(healthy)
        incomplete["pool"] = {
            **incomplete["pool"],
            "generation": incomplete["pool"]["generation"] + 1,
            "resourceSliceCount": 2,
        }
        publish(incomplete)
        eventually(lambda: world.offered_count() == 3, what="nothing from a pool that is incomplete")

        whole = json.loads(healthy)
        whole["pool"] = {**whole["pool"], "generation": whole["pool"]["generation"] + 2}
        publish(whole)
        eventually(lambda: world.offered_count() == 11, what="the pool is whole again")
        b.kubectl("delete", "pod", "local", "-n", "home")
        b.kubectl("delete", "resourceclaim", "local", "-n", "home")
        eventually(lambda: world.offered_count() == 14, what="the local pod has gone")


def test_no_because(open_world: OpenWorld) -> None:
    """What can't be placed is refused with reasons as data and as sentences, and nothing is held."""
    with open_world() as world:
        eventually(lambda: world.offered_count() == 14, what="14 devices on offer")
        dear = world.request("--count", "8", "--duration", "1h", "--price-cap", "2.00", code=1)
        many = world.request("--count", "15", "--duration", "1h", "--price-cap", "3.00", code=1)
        long = world.request("--count", "1", "--duration", "30h", "--price-cap", "3.00", code=1)
        for refused, change in ((dear, "2.4"), (many, "14"), (long, "1d")):
            assert refused["state"] == "Refused"
            assert refused["reasons"]
            assert change in json.dumps(refused["reasons"])
        assert in_claims(world.clusters["b"]) == []


def test_a_device_that_local_work_took_first_is_nobodys_loss(open_world: OpenWorld) -> None:
    """Home takes offered devices while the agent sleeps: the lease goes to others, or is refused with the reason."""
    with open_world() as world:
        b = world.clusters["b"]
        eventually(lambda: world.offered_count() == 14, what="14 devices on offer")
        world.kill_agent("b")
        b.apply(pod("local", devices=8, node="b-1"))
        eventually(lambda: phase(b, "local") == "Running", what="the local pod")
        asked = world.cli("request", "--cluster", "a", *EIGHT, "--no-follow").strip()
        eventually(lambda: world.request_now(asked)["state"] == "Placed", what="placed on the stale offer")
        world.start_agent("b")
        settled = eventually(
            lambda: (view := world.request_now(asked))["state"] in ("Active", "Refused") and view, what="settled"
        )
        assert settled["state"] == "Refused"
        assert settled["reasons"]
        assert phase(b, "local") == "Running"
        held = in_claims(b)
        assert len(held) == len(set(held)) == 8

        # With enough left elsewhere the same thing ends well.
        world.kill_agent("b")
        b.apply(pod("another", devices=2, node="b-2"))
        eventually(lambda: phase(b, "another") == "Running", what="another local pod")
        asked = world.cli(
            "request", "--cluster", "a", "--count", "4", "--duration", "1h", "--price-cap", "3.00", "--no-follow"
        ).strip()
        world.start_agent("b")
        view = eventually(
            lambda: (view := world.request_now(asked))["step"] == "mirrored" and view, what="placed on what is left"
        )
        held = in_claims(b)
        assert len(held) == len(set(held)) == 14
        assert view["lease"]
