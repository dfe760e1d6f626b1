"""When a pod leaves home, when it doesn't, and when it comes back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.wire.burst import BurstPolicySpec
from clusteragent import burst
from clusteragent.kube.interface import Obj

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TIERS = [{"name": "cheap", "price_cap": {"amount": "2.50"}}]
CLASS = {"spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]}}


def policy(**more: Any) -> BurstPolicySpec:
    return BurstPolicySpec.model_validate({"tiers": TIERS, "after": "1m", **more})


def pod(name: str = "big", *, waited: float = 90, message: str = "cannot allocate all claims", **more: Any) -> Obj:
    since = (NOW - timedelta(seconds=waited)).isoformat()
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", **more},
        "spec": {"resourceClaims": [{"name": "gpus", "resourceClaimName": f"{name}-gpus"}]},
        "status": {"phase": "Pending", "conditions": [{**condition, "lastTransitionTime": since}]},
    }


def claim(*counts: int, selector: str = "", **exactly: Any) -> Obj:
    asks = [
        {
            "name": f"r{number}",
            "exactly": {
                "deviceClassName": "gpu",
                "allocationMode": "ExactCount",
                "count": count,
                **({"selectors": [{"cel": {"expression": selector}}]} if selector else {}),
                **exactly,
            },
        }
        for number, count in enumerate(counts)
    ]
    return {"spec": {"devices": {"requests": asks}}}


def decide(
    *pods: Obj,
    policies: dict[str, BurstPolicySpec] | None = None,
    claims: dict[str, Obj] | None = None,
    requests: tuple[Obj, ...] = (),
    namespace: Obj | None = None,
) -> burst.Decision:
    found = {"big-gpus": claim(4)} if claims is None else claims
    return burst.decide(
        policies={"research": policy()} if policies is None else policies,
        pods=pods,
        namespaces=lambda name: namespace or {"metadata": {"name": name}},
        claims=lambda _, name: found.get(name),
        classes=lambda name: CLASS if name == "gpu" else None,
        requests=requests,
        now=NOW,
    )


def asked(state: str | None = None, *, made: float = 0, policy_name: str = "research", **status: Any) -> Obj:
    labels = {burst.POD_LABEL: "uid-big", burst.POLICY_LABEL: policy_name}
    created = (NOW - timedelta(seconds=made)).isoformat()
    meta = {"name": "burst-uid-big", "namespace": "team", "uid": "r", "labels": labels, "creationTimestamp": created}
    return {"metadata": meta, "status": {"state": state, **status} if state else {}}


def why(decision: burst.Decision, name: str = "team/big") -> str:
    return decision.said["research"][name]


def test_a_pod_that_waited_longer_than_its_policy_allows_asks_elsewhere() -> None:
    decision = decide(pod(waited=61))
    [made] = decision.make
    assert made["metadata"]["namespace"] == "team"
    assert made["spec"]["devices"] == {"count": 4, "sameNode": True, "selector": "device.driver == 'gpu.nvidia.com'"}
    assert (made["spec"]["policy"], made["spec"]["duration"]) == ("research", "1d")


def test_before_that_it_waits_and_is_looked_at_again_in_time() -> None:
    decision = decide(pod(waited=50))
    assert decision.make == []
    assert decision.again_s == pytest.approx(10)
    assert why(decision).startswith("waits")


def test_a_request_is_made_once_for_a_pod() -> None:
    decision = decide(pod(), requests=(asked("Open", step="solving"),))
    assert (decision.make, decision.end) == ([], [])
    assert why(decision) == "asked: solving"


def test_the_demand_is_the_sum_of_what_its_claims_lack() -> None:
    assert burst.demand_of(pod(), lambda *_: claim(2, 3), lambda _: CLASS).count == 5
    has = {**claim(4), "status": {"allocation": {"devices": {}}}}
    assert burst.demand_of(pod(), lambda *_: has, lambda _: CLASS).why_not == "it waits for something else than devices"


def test_the_selectors_of_class_and_request_are_joined() -> None:
    demand = burst.demand_of(pod(), lambda *_: claim(1, selector="true || false"), lambda _: CLASS)
    assert demand.selector == "(device.driver == 'gpu.nvidia.com') && (true || false)"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "doesn't exist yet"),
        ({"big-gpus": claim(1, deviceClassName="nobody")}, "no DeviceClass nobody"),
        ({"big-gpus": claim(1, allocationMode="All")}, "how many"),
        ({"big-gpus": claim(1, adminAccess=True)}, "administrative"),
        ({"big-gpus": {"spec": {"devices": {"requests": []}}}}, "something else than devices"),
    ],
)
def test_a_pod_that_stays_is_told_why(claims: dict[str, Obj], reason: str) -> None:
    decision = decide(pod(), claims=claims)
    assert decision.make == []
    assert reason in why(decision)


def test_a_suspended_policy_lets_nobody_go() -> None:
    assert "suspended" in why(decide(pod(), policies={"research": policy(suspended=True)}))


@pytest.mark.parametrize(
    ("covers", "leaves"),
    [
        ({}, True),
        ({"namespaces": ["team"]}, True),
        ({"namespaces": ["other"]}, False),
        ({"pod_labels": {"burst": "yes"}}, True),
        ({"pod_labels": {"burst": "no"}}, False),
        ({"namespace_labels": {"team": "ml"}}, True),
        ({"namespace_labels": {"team": "web"}}, False),
    ],
)
def test_only_pods_that_are_covered_leave(covers: dict[str, Any], leaves: bool) -> None:
    decision = decide(
        pod(labels={"burst": "yes"}),
        policies={"research": policy(covers=covers)},
        namespace={"metadata": {"name": "team", "labels": {"team": "ml"}}},
    )
    assert bool(decision.make) is leaves


def test_it_comes_home_when_its_pod_is_gone_or_runs_here() -> None:
    lease = asked("Active", lease="lse-1", step="mirrored")
    assert decide(requests=(lease,)).end == [lease]
    running = pod()
    running["spec"]["nodeName"] = "n1"
    assert decide(running, requests=(lease,)).end == [lease]
    assert decide(pod(), requests=(lease,)).end == []


def test_it_stays_away_where_the_policy_says_so() -> None:
    lease = asked("Active", lease="lse-1")
    assert decide(policies={"research": policy(return_home=False)}, requests=(lease,)).end == []
    over = asked("Closed", lease="lse-1")
    assert decide(policies={"research": policy(return_home=False)}, requests=(over,)).end == [over]


def test_a_refused_request_is_told_and_tried_again_later() -> None:
    early = decide(pod(), requests=(asked("Refused", made=10, message="over budget"),))
    assert early.end == []
    assert "over budget" in why(early)
    assert early.again_s == pytest.approx(50)
    late = decide(pod(), requests=(asked("Refused", made=61),))
    assert len(late.end) == 1


def test_a_pod_that_is_going_or_placed_is_nobodys_business() -> None:
    assert burst.waits_since(pod(deletionTimestamp="2026-11-23T11:00:00Z")) is None
    placed = pod()
    placed["spec"]["nodeName"] = "n1"
    assert burst.waits_since(placed) is None
