"""What the allocator promises: one rule a test. (Agreement with the reference is test_dra_conformance.)"""

import pytest

from broker.dra import pools
from broker.dra.allocator import Unsatisfiable, allocate, taken_by
from broker.dra.model import Features
from broker.dra.normalise import read_claim, read_class, read_node, read_slice
from broker.dra.search import MAX_STEPS
from tests.dra_shapes import ask, claim_of, class_of, h100, held_claim, node_of, slice_of

SHARED = "vgpu.example.com"


def _answer(*claims, slices, node=None, held=(), classes=None, **features):
    chosen = Features(**features)
    return allocate(
        claims=[read_claim(claim) for claim in claims],
        node=read_node(node or node_of()),
        pools=pools.assemble([read_slice(one) for one in slices], features=chosen).values(),
        allocated=taken_by(read_claim(claim) for claim in held),
        classes={one.name: one for one in map(read_class, classes or [class_of(), class_of("any", "true")])},
        features=chosen,
        new_share_id=lambda: "share",
    )


def _names(answer):
    assert not isinstance(answer, Unsatisfiable), answer.reasons
    return [[result.id.device for result in allocation.results] for allocation in answer]


GPUS = slice_of([h100(i) for i in range(4)])


def test_devices_are_taken_in_the_order_in_which_they_are_published():
    assert _names(_answer(claim_of(ask(2)), slices=[GPUS])) == [["gpu-0", "gpu-1"]]


def test_a_device_is_never_in_two_claims():
    assert _names(_answer(claim_of(ask(2)), claim_of(ask(2)), slices=[GPUS])) == [
        ["gpu-0", "gpu-1"],
        ["gpu-2", "gpu-3"],
    ]
    assert isinstance(_answer(claim_of(ask(2)), claim_of(ask(3)), slices=[GPUS]), Unsatisfiable)


def test_what_another_claim_holds_is_not_given_again():
    held = [held_claim("gpu.nvidia.com/node-1/gpu-0", "gpu.nvidia.com/node-1/gpu-2")]
    assert _names(_answer(claim_of(ask(2)), slices=[GPUS], held=held)) == [["gpu-1", "gpu-3"]]
    assert isinstance(_answer(claim_of(ask(3)), slices=[GPUS], held=held), Unsatisfiable)


def test_all_claims_or_none():
    answer = _answer(claim_of(ask(1)), claim_of(ask(9)), slices=[GPUS])
    assert isinstance(answer, Unsatisfiable)
    assert "request r0: wants 9; unused that match: 4 free" in " ".join(answer.reasons)


def test_a_selector_that_fails_on_a_device_ends_the_whole_allocation():
    answer = _answer(claim_of(ask(1, cel="device.attributes['gpu.nvidia.com'].nothing == 1")), slices=[GPUS])
    assert isinstance(answer, Unsatisfiable)
    assert answer.error


def test_the_first_alternative_that_can_be_had_is_taken_and_named():
    choice = {"firstAvailable": [{"name": "many", **ask(5)}, {"name": "few", **ask(2)}, {"name": "one", **ask(1)}]}
    answer = _answer(claim_of(choice), slices=[GPUS])
    assert [result.request for result in answer[0].results] == ["r0/few", "r0/few"]


def test_all_means_every_matching_device_or_nothing():
    everything = ask(allocationMode="All")
    assert _names(_answer(claim_of(everything), slices=[GPUS])) == [["gpu-0", "gpu-1", "gpu-2", "gpu-3"]]
    held = [held_claim("gpu.nvidia.com/node-1/gpu-3")]
    assert isinstance(_answer(claim_of(everything), slices=[GPUS], held=held), Unsatisfiable)


def test_a_claim_has_at_most_32_devices():
    many = slice_of([h100(i) for i in range(40)])
    assert len(_names(_answer(claim_of(ask(32)), slices=[many]))[0]) == 32
    for claim in (claim_of(ask(33)), claim_of(ask(20), ask(13)), claim_of(ask(10**9)), claim_of(ask(2**62))):
        answer = _answer(claim, slices=[many])
        assert isinstance(answer, Unsatisfiable)
        assert answer.error


def test_an_untolerated_taint_keeps_a_device_away_and_a_toleration_lets_it_in():
    tainted = slice_of([h100(0, taints=[{"key": "xid", "value": "79", "effect": "NoSchedule"}])])
    assert isinstance(_answer(claim_of(ask(1)), slices=[tainted]), Unsatisfiable)
    for toleration in ({"operator": "Exists"}, {"key": "xid", "value": "79"}, {"key": "xid", "operator": "Exists"}):
        assert _names(_answer(claim_of(ask(1, tolerations=[toleration])), slices=[tainted])) == [["gpu-0"]]
    for other in ({"key": "xid"}, {"key": "x", "operator": "Exists"}, {"operator": "Exists", "effect": "NoExecute"}):
        assert isinstance(_answer(claim_of(ask(1, tolerations=[other])), slices=[tainted]), Unsatisfiable)


def test_a_taint_with_another_effect_forbids_nothing():
    marked = slice_of([h100(0, taints=[{"key": "look", "effect": "None"}])])
    assert _names(_answer(claim_of(ask(1)), slices=[marked])) == [["gpu-0"]]


def test_administrators_reach_devices_in_use_and_take_nothing():
    held = [held_claim("gpu.nvidia.com/node-1/gpu-0")]
    answer = _answer(claim_of(ask(1, adminAccess=True)), slices=[GPUS], held=held)
    assert _names(answer) == [["gpu-0"]]
    looking = {**claim_of(), "status": {"allocation": answer[0].to_raw()}}
    assert _names(_answer(claim_of(ask(1)), slices=[GPUS], held=[looking])) == [["gpu-0"]]


@pytest.mark.parametrize(
    ("constraint", "devices"),
    [
        ({"matchAttribute": "resource.kubernetes.io/numaNode"}, ["gpu-4", "gpu-5"]),
        ({"distinctAttribute": "resource.kubernetes.io/numaNode"}, ["gpu-3", "gpu-4"]),
        ({"matchAttribute": "gpu.nvidia.com/productName"}, ["gpu-3", "gpu-4"]),
    ],
)
def test_constraints_hold_between_the_devices_of_a_claim(constraint, devices):
    six = slice_of([h100(i) for i in (3, 4, 5)])
    assert _names(_answer(claim_of(ask(1), ask(1), constraints=[constraint]), slices=[six])) == [devices]


def test_distinct_looks_at_every_device_of_a_request():
    three = slice_of([h100(i) for i in (0, 1, 4)])
    apart = [{"distinctAttribute": "resource.kubernetes.io/numaNode"}]
    assert _names(_answer(claim_of(ask(2), constraints=apart), slices=[three])) == [["gpu-0", "gpu-4"]]
    assert isinstance(_answer(claim_of(ask(3), constraints=apart), slices=[three]), Unsatisfiable)


def test_a_device_without_the_attribute_cannot_be_under_a_constraint():
    bare = slice_of([{"name": "gpu-0"}])
    answer = _answer(claim_of(ask(1), constraints=[{"matchAttribute": "a.b/c"}]), slices=[bare])
    assert isinstance(answer, Unsatisfiable)


# Shared counters


def _mig(*sizes, held=(), value="4", **features):
    devices = [
        {
            "name": f"mig-{i}",
            "consumesCounters": [{"counterSet": "gpu-0", "counters": {"slices": {"value": str(size)}}}],
        }
        for i, size in enumerate(sizes)
    ]
    counters = [{"name": "gpu-0", "counters": {"slices": {"value": value}}}]
    return {
        "slices": [
            slice_of([], name="a", count=2, sharedCounters=counters),
            slice_of(devices, name="b", count=2),
        ],
        "held": held,
        **features,
    }


def test_partitions_share_what_their_gpu_has():
    assert _names(_answer(claim_of(ask(2)), **_mig(3, 1, 2))) == [["mig-0", "mig-1"]]
    assert isinstance(_answer(claim_of(ask(3)), **_mig(3, 1, 2)), Unsatisfiable)


def test_a_partition_that_does_not_fit_is_stepped_over():
    assert _names(_answer(claim_of(ask(2)), **_mig(3, 2, 2))) == [["mig-1", "mig-2"]]


def test_partitions_in_use_consume_their_counters_wherever_they_are_published():
    held = [held_claim("gpu.nvidia.com/node-1/mig-0")]
    assert isinstance(_answer(claim_of(ask(1)), **_mig(3, 2, held=held)), Unsatisfiable)
    assert _names(_answer(claim_of(ask(1)), **_mig(3, 1, held=held))) == [["mig-1"]]


def test_two_drivers_with_a_pool_of_one_name_do_not_share_counters():
    part = _mig(3)["slices"]
    other = [{**one, "spec": {**one["spec"], "driver": "other.example.com"}} for one in part]
    for number, one in enumerate(other):
        one["metadata"] = {"name": f"other-{number}"}
    answer = _answer(claim_of(ask(1, device_class="any"), ask(1, device_class="any")), slices=part + other)
    assert sorted(result.id.driver for result in answer[0].results) == ["gpu.nvidia.com", "other.example.com"]


# Shared devices


def _vgpu(policy=None, value="10", **features):
    capacity = {"memory": {"value": value, **({"requestPolicy": policy} if policy else {})}}
    device = {"name": "vgpu-0", "allowMultipleAllocations": True, "capacity": capacity}
    return {"slices": [slice_of([device], driver=SHARED)], "classes": [class_of("gpu", "true")], **features}


def _consumed(answer):
    assert not isinstance(answer, Unsatisfiable), answer.reasons
    return [str(result.consumed["memory"]) for allocation in answer for result in allocation.results]


def _wants(amount):
    return ask(1, capacity={"requests": {"memory": amount}})


def test_claims_share_a_device_up_to_its_capacity():
    assert _consumed(_answer(claim_of(_wants("6")), claim_of(_wants("4")), **_vgpu())) == ["6", "4"]
    assert isinstance(_answer(claim_of(_wants("6")), claim_of(_wants("5")), **_vgpu()), Unsatisfiable)


def test_without_a_policy_a_claim_that_names_no_amount_takes_everything():
    assert _consumed(_answer(claim_of(ask(1)), **_vgpu())) == ["10"]
    assert isinstance(_answer(claim_of(ask(1)), claim_of(_wants("1")), **_vgpu()), Unsatisfiable)


@pytest.mark.parametrize(
    ("policy", "wanted", "taken"),
    [
        ({"default": "2"}, None, "2"),
        ({"default": "2", "validRange": {"min": "2", "max": "8", "step": "2"}}, "3", "4"),
        ({"default": "2", "validRange": {"min": "2"}}, "1", "2"),
        ({"default": "1", "validValues": ["1", "3", "9"]}, "2", "3"),
        ({"default": "2", "validRange": {"min": "2", "max": "4", "step": "2"}}, "5", None),
        ({"default": "1", "validValues": ["1", "3"]}, "4", None),
        (None, "11", None),
    ],
)
def test_amounts_are_rounded_up_as_the_policy_says_or_refused(policy, wanted, taken):
    answer = _answer(claim_of(_wants(wanted) if wanted else ask(1)), **_vgpu(policy))
    assert isinstance(answer, Unsatisfiable) if taken is None else _consumed(answer) == [taken]


def test_what_claims_hold_of_a_shared_device_is_counted():
    device = f"{SHARED}/node-1/vgpu-0"
    held = [held_claim(device, shareID="s", consumedCapacity={"memory": "7"})]
    assert isinstance(_answer(claim_of(_wants("4")), held=held, **_vgpu()), Unsatisfiable)
    assert _consumed(_answer(claim_of(_wants("3")), held=held, **_vgpu())) == ["3"]
    whole = [held_claim(device)]
    assert isinstance(_answer(claim_of(_wants("1")), held=whole, **_vgpu()), Unsatisfiable)


# Pools and nodes


def test_devices_of_other_nodes_are_out_of_reach():
    assert isinstance(_answer(claim_of(ask(1)), slices=[GPUS], node=node_of("node-2")), Unsatisfiable)


@pytest.mark.parametrize(
    ("line", "matches"),
    [
        ({"key": "zone", "operator": "In", "values": ["a"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "gone", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "zone", "operator": "Exists"}, True),
        ({"key": "zone", "operator": "DoesNotExist"}, False),
        ({"key": "rank", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "rank", "operator": "Lt", "values": ["5"]}, False),
        ({"key": "zone", "operator": "Gt", "values": ["4"]}, False),
    ],
)
def test_a_node_selector_means_what_it_means_for_pods(line, matches):
    rule = {"nodeSelectorTerms": [{"matchExpressions": [line]}]}
    answer = _answer(
        claim_of(ask(1)),
        slices=[slice_of([h100(0)], nodeSelector=rule)],
        node=node_of(labels={"zone": "a", "rank": "5"}),
    )
    assert (not isinstance(answer, Unsatisfiable)) == matches


def test_an_allocation_of_a_local_device_is_for_its_node_only():
    local = _answer(claim_of(ask(1)), slices=[GPUS])[0].to_raw()
    by_name = {"key": "metadata.name", "operator": "In", "values": ["node-1"]}
    assert local["nodeSelector"] == {"nodeSelectorTerms": [{"matchFields": [by_name]}]}
    anywhere = _answer(claim_of(ask(1)), slices=[slice_of([h100(0)], allNodes=True)])[0].to_raw()
    assert "nodeSelector" not in anywhere


def test_an_incomplete_pool_gives_nothing_and_stops_all():
    half = slice_of([h100(0)], count=2)
    answer = _answer(claim_of(ask(1)), slices=[half])
    assert isinstance(answer, Unsatisfiable)
    assert "1 of 2 slices" in answer.reasons[0]
    assert _answer(claim_of(ask(allocationMode="All")), slices=[half]).error


def test_another_nodes_unfinished_partitions_stop_all_until_1_36_and_not_since():
    counters = [{"name": "c", "counters": {"slices": {"value": "2"}}}]
    foreign = slice_of([], node="node-2", count=2, sharedCounters=counters)
    claim = claim_of(ask(allocationMode="All"))
    assert _answer(claim, slices=[GPUS, foreign]).error
    assert len(_names(_answer(claim, slices=[GPUS, foreign], foreign_counters=False))[0]) == 4
    own = slice_of([], count=2, sharedCounters=counters, pool="other", name="other")
    assert _answer(claim, slices=[GPUS, own], foreign_counters=False).error


def test_a_search_without_end_is_given_up():
    crowd = slice_of([h100(i) for i in range(64)])
    pairs = [{"matchAttribute": "gpu.nvidia.com/uuid", "requests": ["r1"]}]
    answer = _answer(claim_of(ask(15), ask(2), constraints=pairs), slices=[crowd])
    assert isinstance(answer, Unsatisfiable)
    assert answer.error
    assert str(MAX_STEPS) in answer.reasons[0]


def test_parameters_of_classes_and_claims_go_along():
    opaque = {"opaque": {"driver": "gpu.nvidia.com", "parameters": {"mode": "x"}}}
    device_class = class_of()
    device_class["spec"]["config"] = [opaque]
    claim = claim_of(ask(1), ask(1), config=[{"requests": ["r1"], **opaque}, {"requests": ["other"], **opaque}])
    raw = _answer(claim, slices=[GPUS], classes=[device_class])[0].to_raw()
    assert raw["devices"]["config"] == [
        {"source": "FromClass", "requests": ["r0", "r1"], **opaque},
        {"source": "FromClaim", "requests": ["r1"], **opaque},
    ]
