"""What each vendor's devices are to a borrower, and that a pin selects one device and no other."""

import pytest

from broker.dra.adapters import Identity, identify
from broker.dra.adapters.identity import literal
from broker.dra.cel import compile_selector
from broker.dra.declared import Declared, declared
from broker.dra.model import DeviceView
from broker.dra.normalise import read_slice, read_view
from tests.dra_shapes import h100, slice_of

UUID = "GPU-2fa81118-5a5f-aa66-7660-471eed407181"


def _attributes(**values):
    kinds = {str: "string", bool: "bool", int: "int"}
    return {name.replace("__", "/").replace("_", "."): {kinds[type(value)]: value} for name, value in values.items()}


def _read(driver, name, attributes, capacity=None, **rest):
    raw = {"name": name, "attributes": attributes, "capacity": {k: {"value": v} for k, v in (capacity or {}).items()}}
    return read_slice(slice_of([raw | rest], driver=driver)).devices[0]


def _nvidia(name, kind, **values):
    return _read("gpu.nvidia.com", name, _attributes(type=kind, productName="NVIDIA H100 80GB HBM3", **values))


GPU = _read("gpu.nvidia.com", "gpu-0", h100(0)["attributes"] | {"uuid": {"string": UUID}}, {"memory": "80Gi"})
VFIO = _nvidia("gpu-vfio-0", "vfio", uuid=UUID)
STATIC_MIG = _nvidia("gpu-1-mig-1g.10gb-19-0", "mig", uuid="MIG-1", parentUUID=UUID, profile="1g.10gb")


def test_a_full_gpu_is_known_by_its_uuid_and_lent_by_itself():
    known = identify(GPU)
    assert (known.unique_key, known.model, known.memory_bytes) == (UUID, "NVIDIA H100 80GB HBM3", 80 << 30)
    assert (known.lendable_unit, known.excluded_because, known.partition) == ("device", "", "")


def test_the_passthrough_face_of_a_gpu_is_the_same_hardware_and_not_offered():
    known = identify(VFIO)
    assert "passthrough" in known.excluded_because
    assert known.unique_key != identify(GPU).unique_key
    assert (known.partition_of, known.exclusive) == (identify(GPU).partition_of, True)


def test_a_mig_device_names_its_profile_and_its_gpu():
    known = identify(STATIC_MIG)
    assert (known.unique_key, known.partition, known.partition_of) == ("mig/MIG-1", "1g.10gb", UUID)
    assert known.excluded_because == ""


def test_mig_devices_that_do_not_exist_yet_are_told_by_the_slices_they_would_take():
    def made(start):
        attributes = _attributes(type="mig", parentUUID=UUID, profile="1g.10gb", productName="NVIDIA H100 80GB HBM3")
        return _read(
            "gpu.nvidia.com", f"gpu-0-mig-{start}", attributes, {"memory": "9856Mi", f"memorySlice{start}": "1"}
        )

    first, second = made(0), made(1)
    assert identify(first).unique_key != identify(second).unique_key
    assert _selected(first, [first, second]) == [first]
    assert identify(first).kind == identify(second).kind


@pytest.mark.parametrize("kind", ["vgpu", "channel", ""])
def test_what_nobody_can_borrow_says_why(kind):
    assert identify(_nvidia("x", kind, uuid=UUID)).excluded_because


@pytest.mark.parametrize(
    ("driver", "told"),
    [("compute-domain.nvidia.com", "plumbing"), ("qat.intel.com", "encrypts"), ("lendmesh.dev", "another cluster")],
)
def test_plumbing_and_borrowed_devices_are_never_offered(driver, told):
    assert told in identify(_read(driver, "channel-0", _attributes(type="channel", id=0, uuid="u"))).excluded_because


def test_tpus_are_lent_by_the_node_and_told_apart_by_their_index():
    chips = [_read("tpu.google.com", f"accel{i}", _attributes(index=i, uuid="tpu-1", tpuGen="v5e")) for i in range(4)]
    assert {identify(chip).lendable_unit for chip in chips} == {"node"}
    assert {identify(chip).kind for chip in chips} == {identify(chips[0]).kind}
    assert len({identify(chip).unique_key for chip in chips}) == 4
    assert _selected(chips[2], chips) == [chips[2]]


AMD = [
    _read(
        "gpu.amd.com",
        f"gpu-{i}-{128 + i}",
        _attributes(
            type="amdgpu", pciAddr=f"0003:00:0{i}.0", renderIndex=128 + i, productName="AMD_Instinct_MI300X_OAM"
        ),
        {"memory": "196592Mi", "computeUnits": "304"},
    )
    for i in range(2)
]
INTEL = [
    _read(
        "gpu.intel.com",
        f"0000-0{i}",
        {
            "model": {"string": "Unknown"},
            "pciId": {"string": "0xe211"},
            "driver": {"string": "xe"},
            "resource.kubernetes.io/pciBusID": {"string": f"0000:0{i}:00.0"},
        },
        {"memory": "24480Mi"},
    )
    for i in range(2)
]
GAUDI = [_read("gaudi.intel.com", f"g{i}", _attributes(model="Gaudi3", serial=f"S{i}")) for i in range(2)]
EXAMPLE = [_read("gpu.example.com", f"gpu-{i}", _attributes(index=i, uuid=f"u{i}", model="LATEST")) for i in range(2)]
STRANGE = [_read("npu.strange.io", f"npu-{i}", _attributes(model="N1", serial=f'it\'s \\ "{i}" é')) for i in range(2)]


def _selected(device, among):
    pin = compile_selector(identify(device).pin_cel)
    return [other for other in among if pin.matches(other.view)]


@pytest.mark.parametrize("devices", [[GPU, VFIO, STATIC_MIG], AMD, INTEL, GAUDI, EXAMPLE, STRANGE])
def test_a_pin_selects_its_device_and_no_other_of_any_driver(devices):
    everything = [GPU, VFIO, STATIC_MIG, *AMD, *INTEL, *GAUDI, *EXAMPLE, *STRANGE]
    for device in devices:
        assert _selected(device, everything) == [device]


@pytest.mark.parametrize("devices", [AMD, INTEL, GAUDI, EXAMPLE, STRANGE])
def test_devices_that_differ_only_in_who_they_are_are_of_one_kind(devices):
    first, second = map(identify, devices)
    if devices is not STRANGE:
        assert first.kind == second.kind
        assert first.unique_key != second.unique_key
    assert not first.excluded_because


def test_a_device_that_nothing_tells_apart_is_excluded_with_the_reason():
    known = identify(_read("npu.strange.io", "npu-0", _attributes(model="N1")))
    assert known.pin_cel is None
    assert "cannot be held" in known.excluded_because
    assert known.model == "N1"


def test_devices_that_are_shared_or_attached_on_demand_are_excluded():
    shared = _read("npu.strange.io", "n", _attributes(uuid="u"), allowMultipleAllocations=True)
    fabric = _read("npu.strange.io", "n", _attributes(uuid="u"), bindingConditions=["Ready"])
    assert "share" in identify(shared).excluded_because
    assert "binding" in identify(fabric).excluded_because


def test_a_kind_answers_selectors_as_its_devices_do():
    known: Identity = identify(GPU)
    view = read_view(driver="gpu.nvidia.com", attributes=known.kind_attributes, capacity=known.kind_capacity)
    wanted = (
        "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'"
        " && device.attributes['gpu.nvidia.com'].driverVersion.isGreaterThan(semver('570.0.0'))"
        " && device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('80Gi')) >= 0"
    )
    assert compile_selector(wanted).matches(view)
    assert compile_selector(wanted).matches(GPU.view)
    assert not any("uuid" in name for name in known.kind_attributes)


@pytest.mark.parametrize(
    "text", ["plain", "it's", 'say "x"', "back\\slash", "new\nline", "é漢🙂", "${x}", "' || true || '"]
)
def test_a_literal_is_one_string_whatever_it_holds(text):
    device = DeviceView("d", {"a": text}, {})
    assert compile_selector(f"device.attributes['d'].a == {literal(text)}").matches(device)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, Declared()),
        (
            {
                "topology.kubernetes.io/region": "eu-1",
                "topology.kubernetes.io/zone": "b",
                "cloud.google.com/gke-nodepool": "p",
            },
            Declared(region="eu-1", zone="b", provider="gcp"),
        ),
        (
            {
                "amd.feature.node.kubernetes.io/snp": "true",
                "nvidia.com/cc.mode.state": "on",
                "nvidia.com/cc.ready.state": "true",
            },
            Declared(tee="sev-snp", gpu_confidential="on"),
        ),
        ({"nvidia.com/cc.mode.state": "on", "nvidia.com/cc.ready.state": "false"}, Declared()),
        ({"nvidia.com/cc.mode.state": "failed"}, Declared()),
        ({"nvidia.com/cc.mode.state": "devtools"}, Declared(gpu_confidential="devtools")),
        ({"intel.feature.node.kubernetes.io/tdx": "true"}, Declared(tee="tdx")),
    ],
)
def test_a_node_declares_what_its_labels_say_and_no_more(labels, expected):
    assert declared(labels) == expected
    assert declared(labels, provider_id="aws:///eu-1a/i-1").provider == "aws"
