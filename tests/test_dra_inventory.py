"""The inventory offers what is free, says why the rest is not, and is the same however events arrive."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.dra.allocator import Unsatisfiable
from broker.dra.inventory import CLAIM, CLASS, NODE, SLICE, TAINT_RULE, Inventory
from broker.dra.model import DeviceId
from broker.dra.together import together
from tests.dra_hostile import spoiled
from tests.dra_shapes import ask, claim_of, class_of, h100, held_claim, node_of, slice_of
from tests.dra_worlds import world

NODES = [node_of("node-1", labels={"topology.kubernetes.io/region": "eu-1"}), node_of("node-2")]
HELD = "gpu.nvidia.com/node-1/gpu-1"


def _inventory(*slices, claims=(), nodes=NODES, rules=(), classes=()):
    made = Inventory()
    for kind, objects in ((NODE, nodes), (SLICE, slices), (CLAIM, claims), (TAINT_RULE, rules), (CLASS, classes)):
        for obj in objects:
            made.put(kind, obj)
    return made


def _states(inventory):
    return {state.name: (state.state, state.reason) for state in inventory.devices()}


def _free(inventory):
    return [state.name for state in inventory.free()]


GPUS = slice_of([h100(0), h100(1), h100(2, taints=[{"key": "xid", "value": "79", "effect": "NoSchedule"}])])


def test_a_device_that_no_claim_holds_is_free_and_says_what_it_is():
    state = _inventory(GPUS).device(DeviceId("gpu.nvidia.com", "node-1", "gpu-0"))
    assert (state.state, state.reason, state.claim, state.node) == ("free", "", None, "node-1")
    assert (state.key, state.identity.memory_bytes, state.declared.region) == ("GPU-node-1-0", 80 << 30, "eu-1")
    assert state.attributes["type"] == {"string": "gpu"}
    assert state.capacity == {"memory": {"value": "80Gi"}}


@pytest.mark.parametrize("extra", [{}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}])
def test_a_device_that_a_claim_holds_is_taken_whatever_else_the_claim_says(extra):
    claim = held_claim(HELD)
    claim["metadata"] |= extra
    claim["status"]["reservedFor"] = []
    inventory = _inventory(GPUS, claims=[claim])
    assert _states(inventory)["gpu-1"] == ("allocated", "allocated to ns/holder")
    assert _free(inventory) == ["gpu-0"]
    inventory.delete(CLAIM, claim)
    assert _free(inventory) == ["gpu-0", "gpu-1"]


def test_administrators_access_takes_nothing():
    assert _free(_inventory(GPUS, claims=[held_claim(HELD, adminAccess=True)])) == ["gpu-0", "gpu-1"]


def test_a_claim_that_becomes_unreadable_still_holds_what_it_held():
    inventory = _inventory(GPUS, claims=[held_claim(HELD)])
    broken = held_claim(HELD)
    broken["status"]["allocation"]["devices"]["results"][0]["device"] = 7
    inventory.put(CLAIM, broken)
    assert _free(inventory) == ["gpu-0"]
    assert "ResourceClaim ns/holder" in inventory.problems()[0]


def test_a_tainted_device_is_not_free():
    assert _states(_inventory(GPUS))["gpu-2"] == ("tainted", "xid=79:NoSchedule")


def test_an_administrators_taint_is_heeded_and_lifted():
    selector = {"driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-0"}
    rule = {
        "metadata": {"name": "r"},
        "spec": {"deviceSelector": selector, "taint": {"key": "x", "effect": "NoExecute"}},
    }
    inventory = _inventory(GPUS, rules=[rule])
    assert _free(inventory) == ["gpu-1"]
    inventory.delete(TAINT_RULE, rule)
    assert _free(inventory) == ["gpu-0", "gpu-1"]


def test_two_claims_on_one_device_are_shown_as_such():
    inventory = _inventory(GPUS, claims=[held_claim(HELD), held_claim(HELD, name="second")])
    assert _states(inventory)["gpu-1"] == ("allocated", "two claims hold it: ns/holder, ns/second")


def test_a_held_device_that_is_no_longer_published_is_still_taken():
    state = _inventory(claims=[held_claim(HELD)]).devices()[0]
    assert (state.state, state.claim) == ("allocated", "ns/holder")
    assert "not published" in state.reason


def test_an_incomplete_pool_offers_nothing():
    inventory = _inventory(slice_of([h100(0)], count=2))
    assert _states(inventory)["gpu-0"][0] == "incomplete"
    inventory.put(SLICE, slice_of([h100(1)], count=2, name="second"))
    assert _free(inventory) == ["gpu-0", "gpu-1"]


def test_only_the_newest_generation_is_offered():
    old, new = slice_of([h100(0), h100(1)]), slice_of([h100(0)], generation=2, name="new")
    inventory = _inventory(old, new)
    assert _free(inventory) == ["gpu-0"]
    assert _states(inventory)["gpu-1"] == ("stale", "published in generation 1, gone from 2")


def test_a_generation_that_moved_to_another_node_is_not_offered_though_the_scheduler_would_give_it():
    old = slice_of([h100(0)], pool="p")
    new = slice_of([h100(0, node="node-2")], pool="p", node="node-2", generation=2, name="new")
    inventory = _inventory(old, new, classes=[class_of()])
    assert [(state.node, state.state) for state in inventory.devices()] == [("node-2", "free")]
    assert not isinstance(inventory.allocate([claim_of(ask(1))], "node-1"), Unsatisfiable)


@pytest.mark.parametrize(
    ("slices", "complaint"),
    [
        ([slice_of([h100(0), h100(0)])], "used twice"),
        ([slice_of([h100(0)], count=2), slice_of([h100(1)], count=3, name="b")], "disagree"),
        ([slice_of([h100(0, consumesCounters=[{"counterSet": "no", "counters": {}}])])], "not there"),
        ([slice_of([h100(0, capacity={"memory": {"value": "-1"}})])], "negative"),
        ([slice_of([h100(0)] * 2000)], "at most"),
        ([slice_of([h100(0), {"name": 5}])], "expected a string"),
        ([slice_of([h100(0, attributes={"type": {"string": "x" * 10**6}})])], "at most"),
    ],
)
def test_a_pool_that_cannot_be_believed_offers_nothing_and_leaves_the_others_alone(slices, complaint):
    healthy = slice_of([h100(0, node="node-2")], node="node-2")
    inventory = _inventory(healthy, *slices)
    assert [state.pool for state in inventory.free()] == ["node-2"]
    assert any(complaint in problem for problem in inventory.problems())


def test_an_object_that_is_no_object_is_a_problem_and_nothing_more():
    inventory = _inventory(GPUS)
    for kind in (SLICE, CLAIM, CLASS, NODE, TAINT_RULE):
        for junk in (None, 7, "x", [], {}, {"metadata": 3}, {"metadata": {"name": "j"}, "spec": 7, "status": 7}):
            inventory.put(kind, junk)
            inventory.devices()
            inventory.delete(kind, junk)
    assert _free(inventory) == ["gpu-0", "gpu-1"]
    assert inventory.problems() == []


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (None, "not known"),
        (node_of(spec={"unschedulable": True}), "cordoned"),
        (node_of(status={"conditions": [{"type": "Ready", "status": "Unknown"}]}), "not ready"),
        (node_of(status={"allocatable": {"nvidia.com/gpu": "8"}}), "device plugin"),
    ],
)
def test_a_device_whose_node_cannot_run_a_pod_is_not_offered(node, complaint):
    inventory = _inventory(GPUS, nodes=[node] if node else [])
    assert _free(inventory) == []
    assert complaint in _states(inventory)["gpu-0"][1]
    inventory.put(NODE, node_of(status={"conditions": [{"type": "Ready", "status": "True"}]}))
    assert _free(inventory) == ["gpu-0", "gpu-1"]


def test_a_tpu_node_is_lent_whole_or_not_at_all():
    chips = slice_of(
        [{"name": f"accel{i}", "attributes": {"index": {"int": i}, "uuid": {"string": "t"}}} for i in range(4)],
        driver="tpu.google.com",
    )
    assert len(_free(_inventory(chips))) == 4
    held = _inventory(chips, claims=[held_claim("tpu.google.com/node-1/accel2")])
    assert _free(held) == []
    assert "accel2" in _states(held)["accel0"][1]


def test_what_its_adapter_excludes_is_not_offered_and_says_why():
    vfio = {"name": "gpu-vfio-0", "attributes": {**h100(0)["attributes"], "type": {"string": "vfio"}}}
    inventory = _inventory(slice_of([h100(0), vfio]))
    assert _free(inventory) == ["gpu-0"]
    assert _states(inventory)["gpu-vfio-0"] == (
        "unusable",
        "the passthrough face of a GPU; the GPU is offered as itself",
    )


def test_a_gpu_is_taken_while_its_passthrough_face_is():
    faces = [h100(0), {"name": "gpu-vfio-0", "attributes": {**h100(0)["attributes"], "type": {"string": "vfio"}}}]
    inventory = _inventory(slice_of(faces), claims=[held_claim("gpu.nvidia.com/node-1/gpu-vfio-0")])
    assert _free(inventory) == []
    assert "same hardware" in _states(inventory)["gpu-0"][1]


def test_partitions_and_their_gpu_exclude_each_other():
    def uses(amount):
        return [{"counterSet": "gpu-0", "counters": {"slices": {"value": str(amount)}}}]

    part = {"parentUUID": {"string": "G"}, "profile": {"string": "1g"}, "type": {"string": "mig"}}
    parts = [
        {
            "name": f"mig-{i}",
            "attributes": part,
            "capacity": {f"memorySlice{i}": {"value": "1"}},
            "consumesCounters": uses(1),
        }
        for i in range(2)
    ]
    counters = [{"name": "gpu-0", "counters": {"slices": {"value": "2"}}}]
    slices = [
        slice_of([], name="a", count=2, sharedCounters=counters),
        slice_of([h100(0, consumesCounters=uses(2)), *parts], name="b", count=2),
    ]
    assert _free(_inventory(*slices)) == ["gpu-0", "mig-0", "mig-1"]
    assert _free(_inventory(*slices, claims=[held_claim("gpu.nvidia.com/node-1/gpu-0")])) == []
    assert _free(_inventory(*slices, claims=[held_claim("gpu.nvidia.com/node-1/mig-0")])) == ["mig-1"]


def _partitioned(claims=()):
    def uses(amount):
        return [{"counterSet": "gpu-0", "counters": {"slices": {"value": str(amount)}}}]

    parts = []
    for number, size in enumerate((2, 1, 1, 3)):
        attributes = {"type": "mig", "uuid": f"MIG-{number}", "profile": f"{size}g"}
        part = {"name": f"mig-{number}", "attributes": {name: {"string": text} for name, text in attributes.items()}}
        parts.append({**part, "capacity": {"memory": {"value": f"{size}0Gi"}}, "consumesCounters": uses(size)})
    counters = [{"name": "gpu-0", "counters": {"slices": {"value": "4"}}}]
    whole = h100(0, consumesCounters=uses(4))
    return _inventory(
        slice_of([], name="a", count=2, sharedCounters=counters),
        slice_of([whole, *parts, h100(1)], name="b", count=2),
        claims=claims,
    )


def test_devices_that_share_hardware_are_not_all_offered_at_once():
    free = _partitioned().free()
    assert [one.name for one in free] == ["gpu-0", "gpu-1", "mig-0", "mig-1", "mig-2", "mig-3"]
    assert [one.name for one in together(free)] == ["gpu-0", "gpu-1"]
    parts = [one for one in free if one.name != "gpu-0"]
    assert [one.name for one in together(parts)] == ["gpu-1", "mig-1", "mig-3"]


def test_what_is_promised_keeps_its_hardware_before_a_claim_holds_it():
    free = {one.name: one for one in _partitioned().free()}
    rest = [one for name, one in free.items() if name != "gpu-0"]
    assert [one.name for one in together(rest, beside=[free["gpu-0"]])] == ["gpu-1"]


def test_what_can_be_had_together_the_scheduler_gives_together():
    for held in ([], ["mig-0"], ["mig-1", "mig-2"], ["gpu-0"]):
        inventory = _partitioned([held_claim(*(f"gpu.nvidia.com/node-1/{name}" for name in held))] if held else [])
        inventory.put(CLASS, class_of("any", "true"))
        chosen = together(inventory.free())
        claim = claim_of(*(ask(1, device_class="any", cel=one.pin) for one in chosen))
        answer = inventory.allocate([claim], "node-1")
        assert not isinstance(answer, Unsatisfiable), answer.reasons
        assert [result.id for result in answer[0].results] == [one.id for one in chosen]


def test_devices_that_only_their_names_tell_apart_cannot_be_held_and_are_not_offered():
    same = [{"name": f"npu-{i}", "attributes": {"uuid": {"string": "same"}}} for i in range(2)]
    inventory = _inventory(slice_of(same, driver="npu.strange.io"))
    assert {reason for _, reason in _states(inventory).values()} == {
        "a neighbour publishes the same, so neither can be held by itself"
    }
    apart = [slice_of([one], driver="npu.strange.io", pool=f"p{i}", name=f"s{i}") for i, one in enumerate(same)]
    split = _inventory(*apart)
    assert _free(split) == []
    split.delete(SLICE, apart[0])
    assert _free(split) == ["npu-1"]


def test_a_fresh_list_replaces_what_was_known():
    inventory = _inventory(GPUS, claims=[held_claim(HELD)])
    inventory.put(SLICE, {"metadata": {"name": "odd"}})
    inventory.replace(CLAIM, [])
    inventory.replace(SLICE, [slice_of([h100(7)])])
    assert _free(inventory) == ["gpu-7"]
    assert inventory.problems() == []


# Whatever happens


def _slices(node, generation, count, taken, spoil):
    devices = [h100(i, node=node) for i in taken]
    if spoil == "taint" and devices:
        devices[0]["taints"] = [{"key": "k", "effect": "NoSchedule"}]
    if spoil == "twice" and devices:
        devices.append(devices[0])
    if spoil == "unreadable":
        devices = "none"
    return slice_of(devices, node=node, generation=generation, count=count, name=f"{node}-{generation}")


_NODE_NAMES = st.sampled_from(["node-1", "node-2"])
_SPOILS = st.sampled_from(["", "", "", "taint", "twice", "unreadable"])
_NUMBERS = st.lists(st.integers(0, 3), unique=True, max_size=3)
_SLICE_OBJECTS = st.builds(_slices, _NODE_NAMES, st.integers(1, 2), st.integers(1, 2), _NUMBERS, _SPOILS)
_CLAIM_OBJECTS = st.builds(
    lambda name, devices: held_claim(*devices, name=name),
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.builds("gpu.nvidia.com/{}/gpu-{}".format, _NODE_NAMES, st.integers(0, 3)), max_size=3),
)
_NODE_OBJECTS = st.builds(
    lambda name, cordoned: node_of(name, spec={"unschedulable": cordoned}), _NODE_NAMES, st.booleans()
)
_RULE_OBJECTS = st.builds(
    lambda name, device: {
        "metadata": {"name": name},
        "spec": {"deviceSelector": {"device": device}, "taint": {"key": "k", "effect": "NoSchedule"}},
    },
    st.sampled_from(["x", "y"]),
    st.sampled_from(["gpu-0", "gpu-1", None]),
)
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just(SLICE), _SLICE_OBJECTS),
        st.tuples(st.just(CLAIM), _CLAIM_OBJECTS),
        st.tuples(st.just(NODE), _NODE_OBJECTS),
        st.tuples(st.just(TAINT_RULE), _RULE_OBJECTS),
    ).flatmap(lambda event: st.tuples(st.just(event[0]), st.just(event[1]), st.booleans(), st.booleans())),
    max_size=30,
)


def _name(obj):
    return obj["metadata"].get("namespace"), obj["metadata"]["name"]


@settings(max_examples=150, deadline=None)
@given(_EVENTS)
def test_events_one_by_one_give_the_same_as_looking_at_everything_afresh(events):
    followed, present = Inventory(), {}
    for kind, obj, gone, look in events:
        (followed.delete if gone else followed.put)(kind, obj)
        present.pop((kind, _name(obj)), None)
        if not gone:
            present[kind, _name(obj)] = obj
        if look:
            followed.devices()
    fresh = Inventory()
    for (kind, _), obj in sorted(present.items(), key=lambda entry: str(entry[0])):
        fresh.put(kind, copy.deepcopy(obj))
    assert followed.devices() == fresh.devices()
    assert followed.problems() == fresh.problems()


@settings(max_examples=100, deadline=None)
@given(_EVENTS)
def test_every_free_device_can_be_had_by_its_pin_and_exactly_it(events):
    inventory = Inventory()
    inventory.put(CLASS, class_of("any", "true"))
    for kind, obj, gone, _ in events:
        (inventory.delete if gone else inventory.put)(kind, obj)
    for state in inventory.free():
        claim = claim_of(ask(1, device_class="any", cel=state.pin))
        answer = inventory.allocate([claim], state.node)
        assert not isinstance(answer, Unsatisfiable), answer.reasons
        assert [result.id for result in answer[0].results] == [state.id]


@pytest.mark.parametrize("seed", range(60))
def test_a_device_is_free_exactly_when_its_pin_gets_it(seed):
    """In random worlds; against the real scheduler it is test_dra_scheduler."""
    made = world(seed, "node-1", lone=True)
    inventory = _inventory(*made.slices, claims=made.held, classes=[class_of("any", "true")])
    for state in inventory.devices():
        if state.pin is not None and state.state != "stale":
            claim = claim_of(ask(1, device_class="any", cel=state.pin))
            got = not isinstance(inventory.allocate([claim], "node-1"), Unsatisfiable)
            assert got == (state.state == "free"), state


_HOSTILE = st.one_of(
    st.tuples(
        st.just(SLICE),
        spoiled(
            slice_of(
                [h100(0, consumesCounters=[{"counterSet": "c", "counters": {"memory": {"value": "1Gi"}}}]), h100(1)],
                sharedCounters=[{"name": "c", "counters": {"memory": {"value": "80Gi"}}}],
            )
        ),
    ),
    st.tuples(
        st.just(CLAIM), spoiled(held_claim("gpu.nvidia.com/node-1/gpu-0", shareID="s", consumedCapacity={"m": "1"}))
    ),
    st.tuples(st.just(NODE), spoiled(node_of("node-1", spec={}, status={"allocatable": {}, "conditions": [{}]}))),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_HOSTILE, max_size=4))
def test_nothing_hostile_reaches_beyond_its_own_pool(objects):
    healthy = slice_of([h100(0, node="node-2")], node="node-2", name="healthy")
    inventory = _inventory(healthy, nodes=[node_of("node-2")])
    for kind, obj in objects:
        inventory.put(kind, obj)
        inventory.devices()
        inventory.problems()
    assert [state.name for state in inventory.free() if state.pool == "node-2"] == ["gpu-0"]
