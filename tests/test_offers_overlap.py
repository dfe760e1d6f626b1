"""A cluster never offers the same hardware twice: not a GPU and its partitions, and not parts of a promised GPU."""

from broker.dra.inventory import NODE, SLICE, Inventory
from broker.wire.lending import LendingPolicySpec
from clusteragent.offers import offers
from clusteragent.rules import Selectors
from tests.dra_shapes import h100, node_of, slice_of


def _devices():
    def uses(amount):
        return [{"counterSet": "gpu-0", "counters": {"slices": {"value": str(amount)}}}]

    texts = {"type": "mig", "profile": "1g", "productName": "NVIDIA H100 80GB HBM3"}
    parts = [
        {
            "name": f"mig-{number}",
            "attributes": {name: {"string": text} for name, text in {**texts, "uuid": f"MIG-{number}"}.items()},
            "capacity": {"memory": {"value": "10Gi"}},
            "consumesCounters": uses(1),
        }
        for number in range(3)
    ]
    inventory = Inventory()
    inventory.put(NODE, node_of())
    counters = [{"name": "gpu-0", "counters": {"slices": {"value": "2"}}}]
    inventory.put(SLICE, slice_of([], name="a", count=2, sharedCounters=counters))
    inventory.put(SLICE, slice_of([h100(0, consumesCounters=uses(2)), *parts], name="b", count=2))
    return inventory.devices()


def _offered(*rules, engaged=()):
    policy = LendingPolicySpec.model_validate({"rules": [{"price": {"amount": "1.00"}, **rule} for rule in rules]})
    made, counts = offers(
        _devices(),
        {"policy": policy},
        nodes=lambda name: node_of(name),
        engaged={f"gpu.nvidia.com/node-1/{name}" for name in engaged},
        resting=set(),
        selectors=Selectors(),
    )
    return sorted(device.name for offer in made for device in offer.devices), counts


MIG = {"name": "mig", "selector": "device.attributes['gpu.nvidia.com'].type == 'mig'"}


def test_a_whole_gpu_is_offered_rather_than_its_parts():
    names, counts = _offered({"name": "all"})
    assert names == ["gpu-0"]
    assert {one.reason: one.devices for one in counts.excluded} == {"shares its hardware with devices on offer": 3}


def test_parts_are_offered_where_only_parts_are_lent_and_only_as_many_as_fit():
    assert _offered(MIG)[0] == ["mig-0", "mig-1"]


def test_parts_of_a_gpu_that_is_being_lent_are_not_offered():
    assert _offered({"name": "all"}, engaged=["gpu-0"])[0] == []
    assert _offered(MIG, engaged=["mig-2"])[0] == ["mig-0"]
