"""Whatever API version an object has it is read alike, and whatever is wrong with it is said and does no harm."""

import contextlib
import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.dra.normalise import Malformed, read_claim, read_class, read_node, read_slice, read_taint_rule
from broker.dra.quantity import parse
from tests.dra_hostile import spoiled
from tests.dra_shapes import ask, claim_of, h100, slice_of

V1 = slice_of(
    [
        h100(0, taints=[{"key": "xid", "effect": "NoSchedule"}], allowMultipleAllocations=True),
        h100(1, consumesCounters=[{"counterSet": "c", "counters": {"memory": {"value": "1Gi"}}}]),
    ]
)


def _as_v1beta1(part):
    part = copy.deepcopy(part)
    part["spec"]["devices"] = [
        {"name": one["name"], "basic": {key: value for key, value in one.items() if key != "name"}}
        for one in part["spec"]["devices"]
    ]
    return part


def _plain(part):
    return [
        (one.id, one.attributes, one.capacity, one.consumes, one.taints, one.nodes, one.shareable)
        for one in part.devices
    ]


def test_a_slice_of_v1beta1_is_read_like_one_of_v1():
    assert _plain(read_slice(_as_v1beta1(V1))) == _plain(read_slice(V1))


def test_a_request_of_v1beta1_is_read_like_one_of_v1():
    nested = claim_of(ask(2, cel="true"))
    flat = copy.deepcopy(nested)
    flat["spec"]["devices"]["requests"] = [{"name": "r0", **ask(2, cel="true")}]
    left, right = (read_claim(raw).requests[0] for raw in (nested, flat))
    assert (left.name, left.prioritised, vars(left.asks[0])) == (right.name, right.prioritised, vars(right.asks[0]))


def test_what_the_api_server_would_fill_in_is_filled_in():
    claim = claim_of({"deviceClassName": "gpu"})
    assert (read_claim(claim).requests[0].asks[0].mode, read_claim(claim).requests[0].asks[0].count) == (
        "ExactCount",
        1,
    )


def test_a_slice_of_both_devices_and_counters_keeps_both():
    both = slice_of([h100(0)], sharedCounters=[{"name": "c", "counters": {"memory": {"value": "80Gi"}}}])
    read = read_slice(both)
    assert len(read.devices) == 1
    assert read.counter_sets[0].counters == {"memory": parse("80Gi")}


def test_a_taint_rule_without_a_selector_means_every_device():
    rule = read_taint_rule({"spec": {"taint": {"key": "lent", "effect": "NoSchedule"}}})
    assert (rule.driver, rule.pool, rule.device, rule.taint.key) == ("", "", "", "lent")


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (("devices",), "many", "expected a list"),
        (("devices",), [h100(0)] * 1025, "at most 1024"),
        (("devices", 0, "name"), "", "is empty"),
        (("devices", 0, "name"), "x" * 254, "at most 253"),
        (("devices", 0, "attributes", "type"), {"string": "x" * 300}, "at most 256"),
        (("devices", 0, "attributes", "type"), {"string": "\ud800"}, "not valid Unicode"),
        (("devices", 0, "attributes", "type"), {"int": 2**70}, "64 bits"),
        (("devices", 0, "attributes", "type"), {"bool": "yes"}, "true or false"),
        (("devices", 0, "attributes"), {f"a{i}": {"int": 1} for i in range(300)}, "at most 256"),
        (("devices", 0, "capacity", "memory"), {"value": "-1"}, "negative"),
        (("devices", 0, "capacity", "memory"), {"value": "lots"}, "not a quantity"),
        (("devices", 0, "capacity", "memory"), {"value": "1" * 100}, "at most 64"),
        (("devices", 0, "capacity", "memory"), {"value": "1", "requestPolicy": {"validRange": {"step": "0"}}}, "zero"),
        (("devices", 0, "taints"), [{"key": 1}], "expected a string"),
        (("devices", 0, "consumesCounters"), [{"counterSet": "c", "counters": {"m": {"value": "-5"}}}], "negative"),
        (("devices", 0, "allowMultipleAllocations"), 1, "true or false"),
        (("sharedCounters",), [{"counters": {}}], "expected a string"),
        (("nodeSelector",), {"nodeSelectorTerms": "all"}, "expected a list"),
    ],
)
def test_a_slice_that_cannot_be_read_is_a_slice_with_a_problem(place, value, complaint):
    raw = copy.deepcopy(V1)
    inside = raw["spec"]
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = value

    read = read_slice(raw)

    assert complaint in read.problem
    assert read.devices == ()
    assert read.pool == ("gpu.nvidia.com", "node-1")


@pytest.mark.parametrize("raw", [None, [], "slice", {}, {"spec": {"driver": "d"}}, {"spec": {"pool": {"name": "p"}}}])
def test_a_slice_whose_pool_cannot_be_told_is_malformed(raw):
    with pytest.raises(Malformed):
        read_slice(raw)


@pytest.mark.parametrize("count", [-1, 2**70, "1", 1.5, True])
def test_a_count_that_is_no_count_is_malformed(count):
    claim = claim_of(ask(1))
    claim["spec"]["devices"]["requests"][0]["exactly"]["count"] = count
    with pytest.raises(Malformed, match="count"):
        read_claim(claim)


_CLAIM = claim_of(
    ask(1, cel="true", tolerations=[{"key": "k"}], capacity={"requests": {"memory": "1"}}),
    {"firstAvailable": [{"name": "a", **ask(1)}]},
    constraints=[{"matchAttribute": "a/b", "requests": ["r0"]}],
    config=[{"requests": ["r0"], "opaque": {"driver": "d", "parameters": {}}}],
)
_READERS = [
    (read_slice, V1),
    (read_claim, _CLAIM),
    (read_class, {"metadata": {"name": "c"}, "spec": {"selectors": []}}),
]
_READERS += [(read_node, {"metadata": {"name": "n", "labels": {"a": "b"}}})]


@settings(max_examples=400)
@given(data=st.data())
def test_no_value_anywhere_does_more_than_make_an_object_malformed(data):
    read, sample = data.draw(st.sampled_from(_READERS))
    raw = data.draw(spoiled(sample))
    with contextlib.suppress(Malformed):
        read(raw)
