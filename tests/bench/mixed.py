"""An invented federation at full size, and what it is asked for: pure, the same for the same seed.

Two hundred clusters of five hundred devices: thirteen kinds from T4 to B200 and a TPU, nodes of 2, 4, 8 and 16, prices
around the market's, a dozen regions, some confidential, some open to a few tenants only. Requests are mixed in size,
selector (CEL, as in a ResourceClaim), cap, place, terms and who pays; a third of them cannot be had, each for one
reason of several, and nobody tells the broker which.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from broker.wire.base import price
from broker.wire.devices import Confidential, Kind, OfferedDevice, Place
from broker.wire.offers import AdvertisedOffer, Terms
from tests.controlplane.fixtures import NVIDIA

Object = dict[str, Any]

TPU = "tpu.google.com"
CLUSTERS, QUICK_CLUSTERS = 200, 20
DEVICES = 500
"""In every cluster."""
TENANTS = tuple(f"tenant-{number}" for number in range(10))
BORROWERS = tuple(f"home-{number:02d}" for number in range(20))
REGIONS = tuple(
    f"{where}-{number}"
    for where in ("eu-west", "eu-north", "us-east", "us-west", "ap-south", "sa-east")
    for number in (1, 2)
)
PROVIDERS = ("own", "aws", "gcp", "azure", "nebius", "lambda", "ovh", "scaleway")
SIZES = (1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 16, 16, 32, 64)


@dataclass(frozen=True)
class Model:
    """One kind of device and what an hour of it costs about."""

    name: str
    architecture: str
    capability: str
    gibibytes: int
    dollars: float
    weight: int
    driver: str = NVIDIA


MODELS = (
    Model("NVIDIA H100 80GB HBM3", "Hopper", "9.0.0", 80, 2.6, 6),
    Model("NVIDIA H200", "Hopper", "9.0.0", 141, 3.4, 3),
    Model("NVIDIA B200", "Blackwell", "10.0.0", 180, 5.2, 2),
    Model("NVIDIA A100-SXM4-80GB", "Ampere", "8.0.0", 80, 1.6, 5),
    Model("NVIDIA A100-SXM4-40GB", "Ampere", "8.0.0", 40, 1.2, 4),
    Model("NVIDIA L40S", "Ada Lovelace", "8.9.0", 48, 1.1, 4),
    Model("NVIDIA L4", "Ada Lovelace", "8.9.0", 24, 0.6, 4),
    Model("NVIDIA A10", "Ampere", "8.6.0", 24, 0.7, 3),
    Model("NVIDIA RTX 6000 Ada Generation", "Ada Lovelace", "8.9.0", 48, 0.9, 2),
    Model("NVIDIA GH200 480GB", "Hopper", "9.0.0", 96, 3.0, 1),
    Model("Tesla V100-SXM2-32GB", "Volta", "7.0.0", 32, 0.5, 2),
    Model("Tesla T4", "Turing", "7.5.0", 16, 0.3, 2),
    Model("tpu v5e", "", "", 16, 1.1, 1, TPU),
)


def market(clusters: int, *, seed: int = 0) -> dict[str, list[AdvertisedOffer]]:
    """Cluster → what it offers."""
    return {f"lender-{number:03d}": _offers(number, random.Random(f"{seed} {number}")) for number in range(clusters)}


def _offers(number: int, rng: random.Random) -> list[AdvertisedOffer]:
    place = Place(region=REGIONS[number % len(REGIONS)], zone=None, provider=rng.choice(PROVIDERS))
    admits = tuple(rng.sample(TENANTS, 4)) if rng.random() < 0.15 else None
    models = rng.sample(MODELS, rng.choice((2, 3, 3, 4)), counts=[model.weight for model in MODELS])
    models = list(dict.fromkeys(models))
    parts = _parts(rng, DEVICES, len(models))
    nodes = iter(range(10_000))
    return [
        _offer(number, at, model, devices, place, admits, nodes, rng)
        for at, (model, devices) in enumerate(zip(models, parts, strict=True))
    ]


def _parts(rng: random.Random, whole: int, count: int) -> list[int]:
    cuts = sorted(rng.sample(range(1, whole // 20), count - 1)) if count > 1 else []
    edges = [0, *(cut * 20 for cut in cuts), whole]
    return [after - before for before, after in pairwise(edges)]


def _offer(
    number: int,
    at: int,
    model: Model,
    devices: int,
    place: Place,
    admits: tuple[str, ...] | None,
    nodes: Any,
    rng: random.Random,
) -> AdvertisedOffer:
    unit = 4 if model.driver == TPU else 1
    shape = 4 if model.driver == TPU else rng.choice((2, 4, 8, 8, 8, 8, 16))
    devices -= devices % unit
    made: list[OfferedDevice] = []
    while len(made) < devices:
        node = f"lender-{number:03d}-{next(nodes):04d}"
        made += [
            OfferedDevice.model_construct(
                driver=model.driver, pool=node, name=f"gpu-{index}", node=node, key=f"GPU-{node}-{index}"
            )
            for index in range(min(shape, devices - len(made)))
        ]
    closed = model.architecture in ("Hopper", "Blackwell") and rng.random() < 0.2
    return AdvertisedOffer(
        name=f"part-{at}",
        policy="everything",
        kind=_kind(model, driver_version=rng.choice(("570.86.15", "580.126.20", "580.95.5"))),
        price=price(round(model.dollars * rng.uniform(0.75, 1.4) * 100) * 10_000),
        terms=Terms.model_construct(
            max_duration=rng.choice((4, 12, 24, 24, 72)) * 3_600,
            min_duration=rng.choice((60, 60, 600)),
            allowed_borrowers=admits,
        ),
        place=place,
        confidential=Confidential(tee="sev-snp", gpu="on") if closed else Confidential(),
        unit=unit,
        devices=tuple(made),
    )


def _kind(model: Model, *, driver_version: str) -> Kind:
    attributes: Object = {"type": {"string": "gpu"}, "productName": {"string": model.name}}
    if model.driver == NVIDIA:
        attributes |= {
            "brand": {"string": "Nvidia"},
            "architecture": {"string": model.architecture},
            "cudaComputeCapability": {"version": model.capability},
            "driverVersion": {"version": driver_version},
        }
    return Kind(
        driver=model.driver,
        model=model.name,
        memory_bytes=model.gibibytes << 30,
        attributes=attributes,
        capacity={"memory": {"value": f"{model.gibibytes}Gi"}},
    )


# --- who asks for what -----------------------------------------------------------------------------------------------


def tenant_of(borrower: str) -> str:
    return TENANTS[BORROWERS.index(borrower) % len(TENANTS)]


def policies() -> dict[str, dict[str, Object]]:
    """Borrower → burst policy → its spec: one with money, and one with hardly any."""
    tiers = [
        {"name": "near", "price_cap": {"amount": "3.00"}, "where": {"regions": ["eu-west-1", "eu-west-2"]}},
        {"name": "spare", "price_cap": {"amount": "2.00"}},
        {"name": "any", "price_cap": {"amount": "9.00"}},
    ]
    return {
        borrower: {
            "nights": {"tiers": tiers, "budget": {"amount": "500000.00"}, "max_duration": "24h"},
            "poor": {"tiers": tiers, "budget": {"amount": "0.05"}, "max_duration": "24h"},
        }
        for borrower in BORROWERS
    }


def requests(count: int, *, seed: int) -> list[Object]:
    """Bodies as users write them; the first word of the label ``why`` says what was meant to be impossible."""
    rng = random.Random(f"requests {seed}")
    made = []
    for number in range(count):
        body = _possible(rng)
        spoilt = number % 3 == 2
        reason = "-"
        if spoilt:
            reason, change = rng.choice(_SPOILED)
            body = change(body)
        made.append({**body, "labels": {"why": reason}})
    rng.shuffle(made)
    return made


def _possible(rng: random.Random) -> Object:
    count = rng.choice(SIZES)
    devices: Object = {"count": count}
    model = rng.choices(MODELS[:12], [each.weight for each in MODELS[:12]])[0]
    if (selector := _selector(rng, model)) is not None:
        devices["selector"] = selector
    elif rng.random() < 0.7:
        devices["driver"] = NVIDIA
    if count <= 8 and rng.random() < 0.4:
        devices["same_node"] = True
    body: Object = {
        "cluster": rng.choice(BORROWERS),
        "devices": devices,
        "duration": rng.choice(("30m", "1h", "2h", "4h")),
        "priority": rng.choice((0, 0, 0, 0, 0, 1, 2, 10)),
    }
    cap = f"{model.dollars * rng.uniform(1.3, 2.0):.2f}"
    paid = rng.random()
    if paid < 0.15:
        body["policy"] = "nights"
    elif paid < 0.30:
        body["tiers"] = [
            {"name": "near", "price_cap": {"amount": cap}, "where": {"regions": rng.sample(REGIONS, 3)}},
            {"name": "far", "price_cap": {"amount": cap}},
        ]
    else:
        body["price_cap"] = {"amount": cap}
        if rng.random() < 0.4:
            body["where"] = {"regions": rng.sample(REGIONS, rng.choice((3, 4, 6)))}
        elif rng.random() < 0.1:
            body["where"] = {"providers": rng.sample(PROVIDERS, 3)}
    if rng.random() < 0.15:
        body["total_cap"] = {"amount": f"{float(cap) * count * 5:.2f}"}
    if rng.random() < 0.06:
        body["confidential"] = "prefer"
    return body


def _selector(rng: random.Random, model: Model) -> str | None:
    attributes = f'device.attributes["{NVIDIA}"]'
    match rng.randrange(5):
        case 0 | 1:
            return f'{attributes}.productName == "{model.name}"'
        case 2:
            return f'{attributes}.architecture == "{model.architecture}"'
        case 3:
            least = max(16, model.gibibytes // 2)
            return (
                f'device.driver == "{NVIDIA}" && '
                f'device.capacity["{NVIDIA}"].memory.compareTo(quantity("{least}Gi")) >= 0'
            )
        case _:
            return None


def _with(body: Object, **fields: Any) -> Object:
    changed = {**body, **fields}
    changed["devices"] = {**body["devices"], **fields.get("devices", {})}
    return {name: value for name, value in changed.items() if value is not None}


_THEIRS = f'device.attributes["{NVIDIA}"]'
_SPOILED: Sequence[tuple[str, Any]] = (
    ("cap", lambda body: _with(body, price_cap={"amount": "0.05"})),
    ("total-cap", lambda body: _with(body, total_cap={"amount": "0.01"})),
    ("count", lambda body: _with(body, devices={"count": 600, "same_node": False})),
    ("node", lambda body: _with(body, devices={"count": 24, "same_node": True})),
    ("region", lambda body: _with(body, where={"regions": ["mars-1"]})),
    ("duration", lambda body: _with(body, policy=None, price_cap={"amount": "9.00"}, duration="96h")),
    ("selector", lambda body: _with(body, devices={"selector": _THEIRS + '.productName == "A900"'})),
    ("driver", lambda body: _with(body, devices={"driver": "gpu.amd.com"})),
    ("budget", lambda body: _with(body, policy="poor", tiers=None)),
    (
        "confidential",
        lambda body: _with(
            body, confidential="require", devices={"selector": _THEIRS + '.architecture == "Turing"'}
        ),
    ),
)  # fmt: skip
