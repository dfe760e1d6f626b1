"""What a cluster offers: exactly the free devices its policies lend, under names that stay."""

from typing import Any

import pytest

from broker.dra.cel import compile_selector
from broker.dra.inventory import CLAIM, NODE, SLICE, Inventory
from broker.dra.normalise import read_view
from broker.wire.devices import Place
from broker.wire.lending import LendingPolicySpec
from broker.wire.offers import AdvertisedOffer, InventoryCounts
from clusteragent.kube.interface import Obj
from clusteragent.offers import offers, ref_of
from clusteragent.rules import Selectors
from lendmesh import inventories

H100 = {"name": "h100", "driver": "gpu.nvidia.com", "price": {"amount": "2.40"}}
ALL = {"name": "all", "price": {"amount": "1.00"}}


def policy(*rules: dict[str, Any], **more: Any) -> LendingPolicySpec:
    return LendingPolicySpec.model_validate({"rules": rules, **more})


class Here:
    """A cluster as its inventory sees it."""

    def __init__(self, *slices: Obj) -> None:
        self.inventory = Inventory()
        self.nodes: dict[str, Obj] = {}
        for each in slices:
            self.inventory.put(SLICE, each)
            self.add_node(inventories.node(each["spec"]["nodeName"]))

    def add_node(self, node: Obj) -> None:
        self.nodes[node["metadata"]["name"]] = node
        self.inventory.put(NODE, node)

    def allocate(self, *devices: str) -> None:
        results = [
            dict(zip(("driver", "pool", "device"), device.split("/"), strict=True), request="r") for device in devices
        ]
        claim = {
            "metadata": {"name": "home", "namespace": "default", "uid": "1"},
            "spec": {"devices": {"requests": []}},
            "status": {"allocation": {"devices": {"results": results}}},
        }
        self.inventory.put(CLAIM, claim)

    def offers(
        self,
        policies: dict[str, LendingPolicySpec],
        *,
        engaged: set[str] = frozenset(),  # type: ignore[assignment]  # never changed
        resting: set[str] = frozenset(),  # type: ignore[assignment]  # never changed
    ) -> tuple[list[AdvertisedOffer], InventoryCounts]:
        return offers(
            self.inventory.devices(),
            policies,
            nodes=self.nodes.get,
            engaged=set(engaged),
            resting=set(resting),
            selectors=Selectors(),
            place=Place(region="eu-north-1"),
        )


def names(made: list[AdvertisedOffer]) -> set[str]:
    return {f"{device.driver}/{device.pool}/{device.name}" for offer in made for device in offer.devices}


@pytest.fixture
def gpus() -> Here:
    return Here(*inventories.nvidia_gpus("n1"), *inventories.nvidia_gpus("n2"))


def test_a_device_is_offered_unless_something_has_it(gpus: Here) -> None:
    gpus.allocate("gpu.nvidia.com/n1/gpu-0", "gpu.nvidia.com/n1/gpu-1")
    made, counts = gpus.offers(
        {"idle": policy(H100)}, engaged={"gpu.nvidia.com/n1/gpu-2"}, resting={"gpu.nvidia.com/n1/gpu-3"}
    )
    assert names(made) == {f"gpu.nvidia.com/n1/gpu-{n}" for n in range(4, 8)} | {
        f"gpu.nvidia.com/n2/gpu-{n}" for n in range(8)
    }
    assert (counts.total, counts.allocated, counts.lent) == (16, 2, 1)


def test_what_is_kept_back_is_not_in_the_offer(gpus: Here) -> None:
    made, counts = gpus.offers({"idle": policy({**H100, "keep_back": {"devices": 2}})})
    assert len(names(made)) == 14
    assert counts.kept_back == 2


def test_keeping_back_a_share_counts_all_devices_free_or_not(gpus: Here) -> None:
    gpus.allocate(*(f"gpu.nvidia.com/n1/gpu-{n}" for n in range(8)))
    made, _ = gpus.offers({"idle": policy({**H100, "keep_back": {"devices": 1, "percent": 25}})})
    assert len(names(made)) == 8 - 4


def test_a_lease_does_not_change_what_is_kept_back(gpus: Here) -> None:
    rules = {"idle": policy({**H100, "keep_back": {"devices": 2}})}
    before, _ = gpus.offers(rules)
    lent = sorted(names(before))[:4]
    after, _ = gpus.offers(rules, engaged=set(lent))
    assert names(after) == names(before) - set(lent)


def test_an_offer_keeps_its_name_while_devices_come_and_go(gpus: Here) -> None:
    [before], _ = gpus.offers({"idle": policy(H100)})
    gpus.allocate("gpu.nvidia.com/n1/gpu-0")
    [after], _ = gpus.offers({"idle": policy({**H100, "keep_back": {"devices": 1}})})
    assert after.name == before.name
    [dearer], _ = gpus.offers({"idle": policy({**H100, "price": {"amount": "3.00"}})})
    assert dearer.name != before.name


def test_the_first_rule_that_matches_decides(gpus: Here) -> None:
    never = {
        "name": "never",
        "selector": "device.attributes['gpu.nvidia.com'].productName.contains('H100')",
        "lend": False,
    }
    assert gpus.offers({"a": policy(never), "b": policy(ALL)})[0] == []
    assert len(names(gpus.offers({"a": policy(ALL), "b": policy(never)})[0])) == 16


def test_nothing_is_offered_without_a_policy_or_by_a_suspended_one(gpus: Here) -> None:
    assert gpus.offers({})[0] == []
    assert gpus.offers({"idle": policy(H100, suspended=True)})[0] == []


def test_a_tpu_node_is_lent_whole_or_not_at_all() -> None:
    tpus = Here(*inventories.tpu_host("t1"), *inventories.tpu_host("t2"), *inventories.tpu_host("t3"))
    [offer], _ = tpus.offers({"idle": policy({**ALL, "keep_back": {"devices": 1}})})
    assert offer.unit == 4
    assert len(offer.devices) == 8
    assert len({device.node for device in offer.devices}) == 2
    tpus.allocate("tpu.google.com/t1/accel0")
    [offer], _ = tpus.offers({"idle": policy(ALL)})
    assert {device.node for device in offer.devices} == {"t2", "t3"}


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"unschedulable": True}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
    ],
)
def test_devices_of_a_node_that_takes_no_work_are_not_offered(gpus: Here, change: Obj) -> None:
    gpus.add_node({**inventories.node("n1"), **change})
    assert {device.node for offer in gpus.offers({"idle": policy(H100)})[0] for device in offer.devices} == {"n2"}


def test_devices_of_different_places_are_different_offers(gpus: Here) -> None:
    gpus.add_node(inventories.node("n1", labels=inventories.place("eu-west-1", "a")))
    made, _ = gpus.offers({"idle": policy(H100)})
    assert sorted(offer.place.region or "" for offer in made) == ["eu-north-1", "eu-west-1"]
    [one], _ = gpus.offers({"idle": policy(H100, place={"region": "moon", "zone": "dark"})})
    assert one.place.region == "moon"


def test_an_offer_says_under_whose_law_its_devices_are(gpus: Here) -> None:
    [silent], _ = gpus.offers({"idle": policy(H100)})
    [said], _ = gpus.offers({"idle": policy(H100, place={"jurisdiction": "EU"})})
    assert (silent.place.jurisdiction, said.place.jurisdiction) == (None, "EU")
    assert silent.name != said.name


def test_every_device_is_counted_once_and_what_is_not_offered_has_a_reason(gpus: Here) -> None:
    gpus.allocate("gpu.nvidia.com/n1/gpu-0")
    made, counts = gpus.offers(
        {"idle": policy({**H100, "keep_back": {"devices": 3}})}, engaged={"gpu.nvidia.com/n2/gpu-0"}
    )
    assert len(names(made)) + sum(each.devices for each in counts.excluded) == counts.total == 16
    assert ref_of(gpus.inventory.devices()[0]) == "gpu.nvidia.com/n1/gpu-0"


def test_nodes_of_different_nvlink_domains_are_different_offers_and_a_selector_can_tell(gpus: Here) -> None:
    """What a node declares about its wiring and its platform is there to be asked for."""
    wired = {"nvidia.com/gpu.clique": "6f1e.7", "lendmesh.dev/conformance": "k8s-ai-1.36"}
    gpus.add_node(inventories.node(next(iter(gpus.nodes)), labels=wired))
    made, _ = gpus.offers({"p": policy(H100)})
    domains = {offer.kind.attributes.get("lendmesh.dev/nvlinkDomain", {}).get("string"): offer for offer in made}
    assert domains.keys() == {None, "6f1e.7"}
    wanted = compile_selector("device.attributes['lendmesh.dev'].?nvlinkDomain.orValue('') == '6f1e.7'")
    for domain, offer in domains.items():
        kind = offer.kind
        view = read_view(driver=kind.driver, attributes=kind.attributes, capacity=kind.capacity)
        assert wanted.matches(view) == (domain is not None)
