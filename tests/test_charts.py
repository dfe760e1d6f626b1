"""The charts as helm renders them: what they refuse, how their pods run, what the agent may do, what its kinds hold."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from broker.settings import read_settings
from broker.wire.burst import BurstPolicySpec
from broker.wire.leases import LeaseBody, LeaseClaims
from broker.wire.lending import LendingPolicySpec
from broker.wire.requests import CapacityRequest, RequestView
from clusteragent import record, requests
from clusteragent.kube.interface import RESOURCE_CLAIMS, ROLE_BINDINGS, Forbidden
from clusteragent.kube.sim import Call
from clusteragent.lend import lent_status
from clusteragent.settings import Settings
from tests.agents import LEASE, Clock, FakeBroker, Side
from tests.charts import (
    AGENT,
    NAMESPACE,
    POSTGRES,
    Helm,
    Object,
    Refused,
    Rights,
    against_restricted,
    camel,
    environment,
    of_kind,
    pod_specs,
    schema_of,
)
from tests.conftest import ControlPlanes

pytestmark = pytest.mark.controlplane

EVERYTHING = {
    **AGENT,
    "cluster": {
        "name": "b",
        "region": "eu-north-1",
        "jurisdiction": "EU",
        "provider": "onprem",
        "apiServerUrl": "https://b.example:6443",
    },
    "broker": {
        "url": "https://broker.example:8443",
        "ca": {"pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
        "joinToken": {"value": "lmj_0123456789abcdef0123"},
    },
    "lend": {"placeholderImage": "pause:3.10", "priorityClasses": ["low"]},
    "networkPolicy": {"enabled": True},
    "env": {"LENDMESH_AGENT_DRAIN": "60"},
    "podLabels": {"team": "infra"},
    "priorityClassName": "system-cluster-critical",
}
BROKER_EVERYTHING = {
    **POSTGRES,
    "publicUrl": "https://broker.example",
    "serviceMonitor": {"enabled": True, "tokenSecret": {"name": "metrics"}, "tlsConfig": {"insecureSkipVerify": True}},
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
    "env": {"LENDMESH_BROKER_SKEW": "10s"},
}
RELEASES = [("clusteragent", AGENT), ("clusteragent", EVERYTHING), ("broker", {}), ("broker", BROKER_EVERYTHING)]


@pytest.fixture(scope="module")
def helm(control_planes: ControlPlanes) -> Helm:
    return Helm(control_planes.parts().command("helm"))


@pytest.fixture(scope="module")
def agent(helm: Helm) -> list[Object]:
    return helm.render("clusteragent", AGENT)


def changed(values: Object, path: str, value: Any) -> Object:
    """``values`` with another one at ``path``."""
    new = copy.deepcopy(values)
    *way, last = path.split(".")
    inner = new
    for step in way:
        inner = inner.setdefault(step, {})
    inner[last] = value
    return new


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chart", "values"), RELEASES)
def test_good_values_are_taken_and_the_chart_has_no_lint(helm: Helm, chart: str, values: Object) -> None:
    helm.lint(chart, values)
    assert helm.render(chart, values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cluster.name", ""),
        ("cluster.name", "Not_A_Label"),
        ("broker.url", "broker.example"),
        ("cluster.apiServerUrl", "http://plain.example"),
        ("broker.joinToken.value", "not-a-join-token"),
        ("broker.joinToken", {"value": "lmj_0123456789abcdef0123", "existingSecret": "token"}),
        ("broker.ca.pem", "MIIB"),
        ("lend.enabled", "yes"),
        ("lend.enable", True),
        ("lend.priorityClasses", ["it's"]),
        ("replicas", 2),
        ("env", {"PATH": "/"}),
        ("env", {"LENDMESH_AGENT_DRAIN": 60}),
        ("image.digest", "sha256:short"),
    ],
)
def test_bad_values_of_the_agent_are_refused(helm: Helm, path: str, value: object) -> None:
    with pytest.raises(Refused, match="values don't meet the specifications"):
        helm.render("clusteragent", changed(AGENT, path, value))


@pytest.mark.parametrize(
    ("values", "path", "value"),
    [
        ({}, "replicas", 2),
        ({}, "database.type", "mysql"),
        ({}, "database.url", "postgresql://user:secret@host/db"),
        ({}, "tls.mode", "secret"),
        ({}, "persistence.size", "big"),
        ({}, "serviceMonitor.enabled", True),
        ({}, "unknown", 1),
        (POSTGRES, "database.existingSecret", ""),
        (POSTGRES, "leaseKeys.existingSecret", ""),
        (POSTGRES, "tls.mode", "embedded"),
        (POSTGRES, "replicas", 0),
    ],
)
def test_bad_values_of_the_broker_are_refused(helm: Helm, values: Object, path: str, value: object) -> None:
    with pytest.raises(Refused, match="values don't meet the specifications"):
        helm.render("broker", changed(values, path, value))


# -- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chart", "values"), RELEASES)
def test_every_pod_runs_under_pod_security_restricted(helm: Helm, chart: str, values: Object) -> None:
    pods = list(pod_specs(helm.render(chart, values)))
    assert pods
    for pod in pods:
        assert against_restricted(pod) == []
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["containers"])
        assert all(one["resources"]["limits"]["memory"] for one in pod["containers"])
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("values", [AGENT, EVERYTHING])
def test_the_agent_understands_the_environment_it_is_given(helm: Helm, values: Object) -> None:
    (pod,) = pod_specs(helm.render("clusteragent", values))
    given = environment(pod) | {"LENDMESH_AGENT_NAMESPACE": NAMESPACE}
    settings = Settings.from_env(given)
    assert (settings.cluster, settings.broker_url) == ("b", "https://broker.example:8443")
    assert settings.region == values["cluster"].get("region")
    assert settings.jurisdiction == values["cluster"].get("jurisdiction")
    mounts = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    for file in (settings.broker_ca_file, settings.join_token_file):
        assert file is None or str(file.parent) in mounts


@pytest.mark.parametrize("values", [{}, BROKER_EVERYTHING])
def test_the_broker_understands_the_environment_it_is_given(helm: Helm, values: Object) -> None:
    (pod,) = pod_specs(helm.render("broker", values))
    given = environment(pod)
    if values:
        assert given["LENDMESH_BROKER_DATABASE_URL"] == "from-elsewhere"
        given["LENDMESH_BROKER_DATABASE_URL"] = "postgresql://elsewhere"
    settings = read_settings(arguments={}, environment=given)
    assert settings.port == 8443
    assert f"lendmesh-broker.{NAMESPACE}.svc" in settings.names
    assert settings.tls == ("files" if values else "embedded")
    mounts = [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]]
    for file in (settings.data_dir, settings.lease_keys, settings.tls_cert_file, settings.tls_key_file):
        assert file is None or any(str(file).startswith(f"{mount}/") for mount in mounts)


def test_secrets_come_by_reference_and_nowhere_else(helm: Helm) -> None:
    secret = EVERYTHING["broker"]["joinToken"]["value"]
    for manifest in helm.render("clusteragent", EVERYTHING):
        assert (secret in str(manifest)) == (manifest["metadata"]["name"] == "lendmesh-agent-join-token")


def test_only_several_replicas_have_a_disruption_budget(helm: Helm) -> None:
    """One for a single replica would only keep nodes from being drained."""
    assert not of_kind(helm.render("broker", {}), "PodDisruptionBudget")
    (budget,) = of_kind(helm.render("broker", POSTGRES), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


# -- rights -----------------------------------------------------------------------------------------------------------


def test_what_is_switched_off_brings_no_rights(helm: Helm) -> None:
    for off, gone in (("lend", "lendmesh-agent-lend"), ("borrow", "lendmesh-agent-borrow")):
        manifests = helm.render("clusteragent", {**AGENT, off: {"enabled": False}})
        names = {one["metadata"]["name"] for one in of_kind(manifests, "ClusterRole", "ClusterRoleBinding")}
        assert gone not in names
        assert "lendmesh-agent-observe" in names


def test_the_agents_rights_have_no_back_door(agent: list[Object]) -> None:
    for where, rule in Rights(agent).rules:
        words = [*rule["verbs"], *rule["apiGroups"], *rule["resources"]]
        assert not {"*", "escalate", "impersonate", "approve"} & set(words)
        if "bind" in rule["verbs"]:
            assert rule["resourceNames"] == ["lendmesh-borrower"]
        if "secrets" in rule["resources"]:
            reads = {"get", "list", "watch"} & set(rule["verbs"])
            assert not reads or (where == NAMESPACE and rule["resourceNames"] == ["lendmesh-agent-identity"])
        if "serviceaccounts/token" in rule["resources"]:
            assert rule["resourceNames"] == ["borrower"]


@pytest.fixture
async def sides(agent: list[Object]) -> AsyncIterator[tuple[FakeBroker, Side, Side, set[str]]]:
    """A lender and a borrower whose agents may do what the chart says, and what each was refused."""
    rights, denied = Rights(agent), set[str]()

    async def judge(call: Call) -> None:
        wanted = [(call.verb, f"{call.kind.plural}/{call.subresource}" if call.subresource else call.kind.plural)]
        if call.kind == RESOURCE_CLAIMS and call.subresource == "status":
            wanted.append((call.verb, "resourceclaims/binding"))
        for verb, resource in wanted:
            if not rights.allow(verb, call.kind.group, resource, name=call.name, namespace=call.namespace):
                denied.add(f"{verb} {resource}")
                raise Forbidden(403, "Forbidden", f"cannot {verb} {resource}")

    clock = Clock()
    broker = FakeBroker(clock)
    a, b = Side("a", broker), Side("b", broker)
    await a.prepare()
    await b.prepare(nodes=2)
    for side in (a, b):
        side.kube.faults.before = judge
        await side.start()
        await side.ready()
    yield broker, a, b, denied
    for side in (a, b):
        await side.kill()


async def test_every_call_of_a_lease_is_granted(sides: tuple[FakeBroker, Side, Side, set[str]]) -> None:
    broker, _, b, denied = sides
    await broker.sees("b", 14)
    body = await broker.grant("b", "a", 8)
    await broker.hears("b", "held")
    await broker.activate(body)
    await broker.hears("b", "lent")
    await broker.hears("a", "mirrored")
    await broker.uplink("a").return_lease(LEASE)
    await broker.hears("b", "released")
    await broker.hears("a", "gone")
    await b.eventually(lambda: nothing(b))
    assert not denied


async def nothing(side: Side) -> bool:
    return not await side.namespaces()


def test_the_borrowers_role_is_the_only_one_that_the_agent_binds(agent: list[Object]) -> None:
    rights = Rights(agent)
    group = ROLE_BINDINGS.group
    assert rights.allow("bind", group, "clusterroles", name="lendmesh-borrower", namespace=None)
    assert not rights.allow("bind", group, "clusterroles", name="cluster-admin", namespace=None)


# -- kinds ------------------------------------------------------------------------------------------------------------


def fields(schema: Object, definitions: Object) -> Iterator[tuple[str, ...]]:
    """Every path to a field in a JSON schema; lists are passed through, maps end there."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    for variant in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from fields(variant, definitions)
    if "items" in schema:
        yield from fields(schema["items"], definitions)
    for name, inner in schema.get("properties", {}).items():
        yield (name,)
        for rest in fields(inner, definitions):
            yield (name, *rest)


def model_fields(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    return {".".join(map(camel, path)) for path in fields(schema, schema.get("$defs", {}))}


def kind_fields(agent: list[Object], kind: str, part: str = "spec") -> set[str]:
    return {".".join(path) for path in fields(schema_of(agent, kind)["properties"][part], {})}


def test_a_lending_policy_says_what_its_model_reads(agent: list[Object]) -> None:
    assert kind_fields(agent, "LendingPolicy") == model_fields(LendingPolicySpec)


def test_a_burst_policy_says_what_its_model_reads(agent: list[Object]) -> None:
    assert kind_fields(agent, "BurstPolicy") == model_fields(BurstPolicySpec)


def test_a_capacity_request_says_what_its_model_reads_but_for_where_it_is(agent: list[Object]) -> None:
    """The cluster is the agent's own, and the namespace the object's: nobody asks for another's."""
    assert kind_fields(agent, "CapacityRequest") == model_fields(CapacityRequest) - {"cluster", "workload.namespace"}


def test_what_the_agent_writes_is_not_dropped(agent: list[Object]) -> None:
    """A field that a schema doesn't know is pruned without a word, and would be written again for ever."""
    now = datetime(2026, 11, 23, tzinfo=UTC)
    price = {"amount": "1.00"}
    kind = {"driver": "gpu.nvidia.com", "model": "H100"}
    placed = {"cluster": "b", "offer": "o", "kind": kind, "devices": 1, "price": price, "cost": price}
    view = RequestView.model_validate({
        "id": "req-1", "tenant": "t", "cluster": "a", "state": "Active", "step": "active", "created_at": now,
        "updated_at": now, "revision": 1, "lease": LEASE, "placement": placed,
        "request": {"cluster": "a", "devices": {"count": 1}, "duration": "1h", "price_cap": price},
    })  # fmt: skip
    assert {*requests.told(view), "observedGeneration"} <= kind_fields(agent, "CapacityRequest", "status")
    device = {"driver": "gpu.nvidia.com", "pool": "n", "name": "gpu-0", "node": "n", "fence": 1}
    body = LeaseBody.model_validate({
        "id": LEASE, "request": "req-1", "lender": "b", "borrower": "a", "tenant": "t", "kind": kind,
        "devices": [device], "price": price, "terms": {"max_duration": "1d"}, "duration": "1h",
    })  # fmt: skip
    claims = LeaseClaims(iss="i", sub="a", aud=[], jti=LEASE, iat=1, nbf=1, exp=2, generation=1, lease=body)
    assert {*lent_status(claims), "message"} <= kind_fields(agent, "DeviceLease", "status")
    made = record.make(body, role="lender", namespace="x", token="t", hold_until=now)
    assert set(made["spec"]) == kind_fields(agent, "DeviceLease")
