"""``lendmesh inventory`` and ``lendmesh conformance``: what they print, and what they exit with."""

import gzip
import json

import pytest

from broker.dra import conformance
from clusteragent.kube.sim import SimCluster
from lendmesh import inventories, show
from lendmesh.cli import run
from lendmesh.cli.devices import plain, read, table, together
from tests.dra_shapes import ask, claim_of, class_of, h100, node_of, slice_of


def _case(*, allocatable=True, free=("gpu.nvidia.com/node-1/gpu-0", "gpu.nvidia.com/node-1/gpu-1")):
    return {
        "name": "two-gpus",
        "category": "plain",
        "features": [],
        "deviceClasses": [class_of()],
        "resourceSlices": [slice_of([h100(0), h100(1)])],
        "node": node_of(),
        "claims": [claim_of(ask(2))],
        "expect": {"allocatable": allocatable, "freeAlone": list(free)},
    }


@pytest.mark.parametrize("packed", [False, True])
def test_conformance_ends_with_the_agreement_and_exits_0_when_all_agree(tmp_path, capsys, packed):
    file = tmp_path / ("cases.json.gz" if packed else "cases.json")
    text = json.dumps([_case(), _case()]).encode()
    file.write_bytes(gzip.compress(text) if packed else text)
    assert run(["conformance", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "agree 2/2"


@pytest.mark.parametrize("wrong", [{"allocatable": False}, {"free": ()}])
def test_conformance_exits_1_and_says_where_we_differ(tmp_path, capsys, wrong):
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([_case(), _case(**wrong)]))
    assert run(["conformance", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "agree 1/2"
    assert any(line.startswith("two-gpus: ") for line in lines)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"not json", b"\x1f\x8bnot gzip", b"\xff"])
def test_conformance_of_what_is_no_file_of_cases_is_refused_in_one_line(tmp_path, capsys, content):
    file = tmp_path / "cases.json"
    if content is not None:
        file.write_bytes(content)
    assert run(["conformance", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lendmesh: these cases cannot be read")


def test_no_cases_are_no_agreement(tmp_path):
    file = tmp_path / "cases.json"
    file.write_text("[]")
    assert run(["conformance", str(file)]) == 1
    assert not conformance.run([file]).complete


async def test_the_inventory_of_a_cluster_fits_a_screen_and_says_why(capsys):
    cluster = SimCluster("lender")
    for name in ("b-1", "b-2"):
        cluster.add_node(name, labels={"topology.kubernetes.io/region": "eu-1"})
    cluster.publish([*inventories.nvidia_gpus("b-1"), *inventories.tpu_host("b-2"), slice_of([h100(0)], node="b-3")])
    kube = cluster.connect()
    picture = await read(kube)
    await kube.close()

    show.console().print(table(picture.devices()))

    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "b-1 gpu.nvidia.com gpu-0…7 (8) NVIDIA H100 80GB HBM3 80Gi free" in rows
    assert "b-2 tpu.google.com accel0…3 (4) tpu v5e – free" in rows
    assert any(row.startswith("b-3 gpu.nvidia.com gpu-0") and row.endswith("node b-3 is not known") for row in rows)


async def test_a_device_for_programs_has_everything_that_decides():
    cluster = SimCluster("lender")
    cluster.add_node("b-1", labels={"topology.kubernetes.io/region": "eu-1"})
    cluster.publish(inventories.nvidia_gpus("b-1", count=1))
    kube = cluster.connect()
    told = plain((await read(kube)).devices()[0])
    await kube.close()
    assert (told["state"], told["reason"], told["node"], told["declared"]["region"]) == ("free", "", "b-1", "eu-1")
    assert told["memoryBytes"] == 81559 * 2**20
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["gpu-0", "gpu-1", "gpu-2"], "gpu-0…2 (3)"),
        (["gpu-0", "gpu-1"], "gpu-0, gpu-1"),
        (["gpu-0", "gpu-2", "gpu-3"], "gpu-0, gpu-2, gpu-3"),
        (["a-0", "b-1", "a-2"], "a-0, b-1, a-2"),
        (["x", "y", "z"], "x, y, z"),
    ],
)
def test_names_that_count_up_are_told_as_a_range(names, told):
    assert together(names) == told


def test_a_cluster_that_cannot_be_reached_is_said_in_one_line(tmp_path, capsys):
    assert run(["inventory", "--kubeconfig", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("lendmesh: ")
