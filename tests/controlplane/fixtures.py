"""Objects shaped as real drivers publish them, as pure functions, for tests on real control planes.

The NVIDIA shape is that of `gpu.nvidia.com` (kubernetes-sigs/dra-driver-nvidia-gpu, deviceinfo.go): one pool per node,
named like the node, devices `gpu-<minor>`, and the class of the driver's chart.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

NVIDIA = "gpu.nvidia.com"
MOST_DEVICES_PER_SLICE = 128


@dataclass(frozen=True)
class Product:
    """What a model of GPU says about itself."""

    name: str
    architecture: str
    compute_capability: str
    memory: str


H100 = Product("NVIDIA H100 80GB HBM3", "Hopper", "9.0.0", "81559Mi")
A100 = Product("NVIDIA A100-SXM4-80GB", "Ampere", "8.0.0", "80Gi")


def node(name: str, *, labels: dict[str, str] | None = None, cpu: str = "128", memory: str = "1Ti") -> Object:
    """A node as kubelet would register it; kwok makes it Ready and plays its pods."""
    room = {"cpu": cpu, "memory": memory, "pods": "256", "ephemeral-storage": "1Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
        },
        "status": {"capacity": room, "allocatable": room},
    }


def gpu_uuid(node_name: str, index: int) -> str:
    """The same for the same node and index, and different between nodes, as hardware is."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{index}.{node_name}')}"


def nvidia_device(node_name: str, index: int, *, product: Product = H100) -> Object:
    """One full GPU, as in a slice's `spec.devices`."""
    bus, root = f"0000:{0x19 + 0x10 * index:02x}:00.0", f"pci0000:{0x15 + 0x10 * index:02x}"
    return {
        "name": f"gpu-{index}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": gpu_uuid(node_name, index)},
            "productName": {"string": product.name},
            "brand": {"string": "Nvidia"},
            "architecture": {"string": product.architecture},
            "addressingMode": {"string": "HMM"},
            "cudaComputeCapability": {"version": product.compute_capability},
            "driverVersion": {"version": "580.126.20"},
            "cudaDriverVersion": {"version": "13.0.0"},
            "resource.kubernetes.io/pciBusID": {"string": bus},
            "resource.kubernetes.io/pcieRoot": {"string": root},
        },
        "capacity": {"memory": {"value": product.memory}},
    }


def slices(
    node_name: str, devices: Sequence[Object], *, driver: str = NVIDIA, generation: int = 1, owner: Object | None = None
) -> list[Object]:
    """The ResourceSlices of one node's pool: as many as the limit of devices per slice asks for.

    :param owner: the Node object, where there is one; the driver makes it the owner.
    """
    parts = [devices[at : at + MOST_DEVICES_PER_SLICE] for at in range(0, len(devices), MOST_DEVICES_PER_SLICE)] or [[]]
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {
                "name": f"{number:05d}-{driver}-{node_name}",
                **({"ownerReferences": [_owner(owner)]} if owner else {}),
            },
            "spec": {
                "driver": driver,
                "nodeName": node_name,
                "pool": {"name": node_name, "generation": generation, "resourceSliceCount": len(parts)},
                "devices": list(part),
            },
        }
        for number, part in enumerate(parts)
    ]


def nvidia_slices(
    node_name: str, *, count: int = 8, product: Product = H100, generation: int = 1, owner: Object | None = None
) -> list[Object]:
    """The slices of a node with `count` whole GPUs."""
    devices = [nvidia_device(node_name, index, product=product) for index in range(count)]
    return slices(node_name, devices, generation=generation, owner=owner)


def nvidia_device_class() -> Object:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": NVIDIA},
        "spec": {
            "selectors": [
                {"cel": {"expression": f"device.driver == '{NVIDIA}' && device.attributes['{NVIDIA}'].type == 'gpu'"}}
            ]
        },
    }


def claim(name: str, *, count: int = 1, device_class: str = NVIDIA, selectors: Iterable[str] = ()) -> Object:
    """A ResourceClaim for `count` devices of a class, narrowed by CEL."""
    exactly: Object = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    if chosen := [{"cel": {"expression": expression}} for expression in selectors]:
        exactly["selectors"] = chosen
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    }


def pod(name: str, *, claims: Sequence[str] = ()) -> Object:
    """A pod that uses existing claims; it passes the restricted pod security standard."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "resourceClaims": [{"name": one, "resourceClaimName": one} for one in claims],
            "containers": [
                {
                    "name": "work",
                    "image": "pause",
                    "resources": {"claims": [{"name": one} for one in claims]},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def _owner(node_object: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "controller": True,
        "name": node_object["metadata"]["name"],
        "uid": node_object["metadata"]["uid"],
    }
