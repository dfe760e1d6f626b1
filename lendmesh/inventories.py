"""Clusters' inventories, shaped as the drivers publish them: for the demo, for trying things, for simulations.

Each function gives plain ``resource.k8s.io/v1`` objects. The shapes (names of devices, attributes, capacity, counters,
pools named after their node) follow what the drivers of NVIDIA, Google and AMD publish; the hardware is invented.
"""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

Obj = dict[str, Any]

H100_COUNTERS = {
    "memory": "81559Mi", "multiprocessors": "132", "copy-engines": "8", "decoders": "7", "encoders": "0",
    "jpeg-engines": "7", "ofa-engines": "1", **{f"memory-slice-{slice_}": "1" for slice_ in range(8)},
}  # fmt: skip
MIG_PROFILES: Sequence[tuple[str, int, str, int, int, Sequence[int]]] = (
    # profile, profile id, memory, multiprocessors, memory slices, possible placements
    ("1g.10gb", 19, "9856Mi", 16, 1, range(7)),
    ("2g.20gb", 14, "20096Mi", 32, 2, (0, 2, 4)),
    ("3g.40gb", 9, "40448Mi", 60, 4, (0, 4)),
    ("7g.80gb", 0, "80896Mi", 132, 8, (0,)),
)


def node(name: str, *, labels: dict[str, str] | None = None) -> Obj:
    """A ready node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "status": {
            "capacity": {"cpu": "128", "memory": "1Ti", "pods": "110"},
            "allocatable": {"cpu": "128", "memory": "1Ti", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def place(region: str, zone: str) -> dict[str, str]:
    """The labels that say where a node is."""
    return {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}


def nvidia_gpus(node_name: str, *, count: int = 8, product: str = "NVIDIA H100 80GB HBM3") -> list[Obj]:
    """Whole GPUs as the NVIDIA driver publishes them: one pool and one slice a node."""
    devices = [_nvidia_gpu(node_name, minor, product) for minor in range(count)]
    return [_slice("gpu.nvidia.com", node_name, 0, 1, devices=devices)]


def nvidia_mig(node_name: str, *, count: int = 2, product: str = "NVIDIA H100 80GB HBM3") -> list[Obj]:
    """GPUs with dynamic MIG: counter sets first, then a slice for each GPU with the whole and its possible parts."""
    total = 1 + count
    sets = [
        {
            "name": f"gpu-{minor}-counter-set",
            "counters": {name: {"value": value} for name, value in H100_COUNTERS.items()},
        }
        for minor in range(count)
    ]
    slices = [_slice("gpu.nvidia.com", node_name, 0, total, sharedCounters=sets)]
    for minor in range(count):
        whole = _nvidia_gpu(node_name, minor, product)
        counters = {name: {"value": value} for name, value in H100_COUNTERS.items()}
        whole["consumesCounters"] = [{"counterSet": f"gpu-{minor}-counter-set", "counters": counters}]
        parts = [
            _mig_part(whole, minor, profile, number, memory, cores, width, start)
            for profile, number, memory, cores, width, starts in MIG_PROFILES
            for start in starts
        ]
        slices.append(_slice("gpu.nvidia.com", node_name, 1 + minor, total, devices=[whole, *parts]))
    return slices


def tpu_host(node_name: str, *, chips: int = 4, generation: str = "v5e") -> list[Obj]:
    """A TPU host: all its chips share one uuid, and only all of them together can be used."""
    host = f"tpu-{_uuid(node_name)}"
    devices = [
        {
            "name": f"accel{index}",
            "attributes": {
                "index": {"int": index},
                "tpuGen": {"string": generation},
                "uuid": {"string": host},
                "brand": {"string": "Google"},
                "accelerator": {"string": f"tpu-{generation}-podslice"},
                "chipCount": {"int": chips},
                "topology": {"string": "2x2" if chips == 4 else "2x4"},
            },
        }
        for index in range(chips)
    ]
    return [_slice("tpu.google.com", node_name, 0, 1, devices=devices)]


def amd_gpus(node_name: str, *, count: int = 8, product: str = "AMD_Instinct_MI300X_OAM") -> list[Obj]:
    """Whole GPUs as the AMD driver publishes them: no uuid, named after card and render node."""
    devices = []
    for index in range(count):
        card, render, bus = index * 8, 128 + index * 8, f"{index:04x}:00:02.0"
        devices.append(
            {
                "name": f"gpu-{card}-{render}",
                "attributes": {
                    "type": {"string": "amdgpu"},
                    "cardIndex": {"int": card},
                    "renderIndex": {"int": render},
                    "deviceID": {"string": str(int(_hash(node_name, index)[:15], 16))},
                    "driverVersion": {"version": "6.12.12"},
                    "family": {"string": "AI"},
                    "partitionProfile": {"string": "spx_nps1"},
                    "pciAddr": {"string": bus},
                    "productName": {"string": product},
                    "resource.kubernetes.io/pcieRoot": {"string": f"pci{bus[:7]}"},
                },
                "capacity": {
                    "computeUnits": {"value": "304"},
                    "memory": {"value": "196592Mi"},
                    "simdUnits": {"value": "1216"},
                },
            }
        )
    return [_slice("gpu.amd.com", node_name, 0, 1, devices=devices)]


def device_classes() -> list[Obj]:
    """The DeviceClasses that the drivers' charts bring."""
    expressions = {
        "gpu.nvidia.com": "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'",
        "mig.nvidia.com": "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig'",
        "tpu.google.com": "device.driver == 'tpu.google.com'",
        "gpu.amd.com": "device.driver == 'gpu.amd.com'",
    }
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": name},
            "spec": {"selectors": [{"cel": {"expression": expression}}]},
        }
        for name, expression in expressions.items()
    ]


def _nvidia_gpu(node_name: str, minor: int, product: str) -> Obj:
    bus = f"0000:{0x19 + minor * 0x11:02x}:00.0"
    return {
        "name": f"gpu-{minor}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{_uuid(node_name, minor)}"},
            "productName": {"string": product},
            "brand": {"string": "Nvidia"},
            "architecture": {"string": "Hopper"},
            "cudaComputeCapability": {"version": "9.0.0"},
            "cudaDriverVersion": {"version": "13.0.0"},
            "driverVersion": {"version": "580.126.20"},
            "addressingMode": {"string": "HMM"},
            "resource.kubernetes.io/pciBusID": {"string": bus},
            "resource.kubernetes.io/pcieRoot": {"string": f"pci{bus[:7]}"},
        },
        "capacity": {"memory": {"value": "81559Mi"}},
    }


def _mig_part(
    whole: Obj, minor: int, profile: str, number: int, memory: str, cores: int, width: int, start: int
) -> Obj:
    slices = {f"memory-slice-{start + offset}": {"value": "1"} for offset in range(width)}
    inherited = {
        key: value for key, value in whole["attributes"].items() if key not in ("type", "uuid", "addressingMode")
    }
    return {
        "name": f"gpu-{minor}-mig-{profile.replace('.', '')}-{number}-{start}",
        "attributes": {
            "type": {"string": "mig"},
            "profile": {"string": profile},
            "parentUUID": whole["attributes"]["uuid"],
            **inherited,
        },
        "capacity": {
            "memory": {"value": memory},
            "multiprocessors": {"value": str(cores)},
            **{f"memorySlice{start + offset}": {"value": "1"} for offset in range(width)},
        },
        "consumesCounters": [
            {
                "counterSet": f"gpu-{minor}-counter-set",
                "counters": {"memory": {"value": memory}, "multiprocessors": {"value": str(cores)}, **slices},
            }
        ],
    }


def _slice(driver: str, node_name: str, index: int, total: int, **content: Any) -> Obj:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{index:05d}-{driver}-{node_name}"},
        "spec": {
            "driver": driver,
            "nodeName": node_name,
            "pool": {"name": node_name, "generation": 1, "resourceSliceCount": total},
            **content,
        },
    }


def _hash(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _uuid(*parts: object) -> uuid.UUID:
    return uuid.UUID(_hash(*parts)[:32])
