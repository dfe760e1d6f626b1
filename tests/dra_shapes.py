"""Raw Kubernetes objects as drivers, people and schedulers write them, for the tests of broker.dra."""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]


def h100(number: int, *, node: str = "node-1", **extra: Any) -> Raw:
    """A full GPU as NVIDIA's driver publishes it."""
    return {
        "name": f"gpu-{number}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{node}-{number}"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "architecture": {"string": "Hopper"},
            "driverVersion": {"version": "580.126.20"},
            "resource.kubernetes.io/pcieRoot": {"string": f"pci0000:{number // 4}0"},
            "resource.kubernetes.io/numaNode": {"int": number // 4},
        },
        "capacity": {"memory": {"value": "80Gi"}},
        **extra,
    }


def slice_of(devices: list[Any], **spec: Any) -> Raw:
    """A slice on ``node``; ``pool``, ``generation``, ``count``, ``driver`` and ``name`` as wanted."""
    node = spec.pop("node", "node-1")
    driver, pool = spec.pop("driver", "gpu.nvidia.com"), spec.pop("pool", node)
    generation, count = spec.pop("generation", 1), spec.pop("count", 1)
    name = spec.pop("name", f"{driver}-{pool}-{generation}")
    where = {} if spec.keys() & {"allNodes", "nodeSelector", "perDeviceNodeSelection"} else {"nodeName": node}
    return {
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": count},
            "devices": devices,
            **where,
            **spec,
        },
    }


def node_of(name: str = "node-1", *, labels: dict[str, str] | None = None, **rest: Any) -> Raw:
    return {"metadata": {"name": name, "labels": labels or {}}, **rest}


def class_of(name: str = "gpu", expression: str = "device.driver == 'gpu.nvidia.com'") -> Raw:
    return {"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}]}}


def ask(count: int = 1, *, device_class: str = "gpu", cel: str | None = None, **rest: Any) -> Raw:
    body: Raw = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count, **rest}
    if cel is not None:
        body["selectors"] = [{"cel": {"expression": cel}}]
    if body["allocationMode"] == "All":
        del body["count"]
    return body


def claim_of(*requests: Raw, name: str = "claim", **devices: Any) -> Raw:
    """A claim; each request is what stands under ``exactly``, or has ``firstAvailable``."""
    listed = [
        {"name": f"r{i}", **(one if "firstAvailable" in one else {"exactly": one})} for i, one in enumerate(requests)
    ]
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"devices": {"requests": listed, **devices}}}


def held_claim(*devices: str, name: str = "holder", **result: Any) -> Raw:
    """A claim that is allocated to devices named ``driver/pool/device``."""
    results = []
    for number, device in enumerate(devices):
        driver, pool, short = device.split("/")
        results.append({"request": f"r{number}", "driver": driver, "pool": pool, "device": short, **result})
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"devices": {"requests": []}},
        "status": {"allocation": {"devices": {"results": results}}},
    }
