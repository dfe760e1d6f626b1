"""What this cluster offers: its free devices, as its LendingPolicies allow; pure.

A device is offered when the inventory calls it free, its node takes work, no lease of ours touches it and the first
rule that matches it lends. What a rule keeps back is subtracted here: it never leaves the cluster. Offers group what is
the same to a borrower and keep their names as long as kind, price, terms and place stay, so that a borrower sees
numbers move and not offers come and go.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from broker.dra.inventory import ALLOCATED, FREE, DeviceState
from broker.dra.together import together
from broker.wire.devices import Confidential, Excluded, Kind, OfferedDevice, Place
from broker.wire.lending import LendingPolicySpec, LendingRule
from broker.wire.offers import MAX_DEVICES_AN_OFFER, MAX_OFFERS, AdvertisedOffer, InventoryCounts, Terms
from clusteragent.kube.interface import Obj
from clusteragent.rules import Selectors, rule_for

MOST_REASONS = 32


@dataclass(frozen=True, eq=False)
class _Lot:
    """Free devices that one rule lends under one name."""

    policy: str
    spec: LendingPolicySpec
    rule: LendingRule
    place: Place
    confidential: Confidential
    sample: DeviceState
    devices: list[DeviceState] = field(default_factory=list)


def offers(
    devices: Sequence[DeviceState],
    policies: Mapping[str, LendingPolicySpec],
    *,
    nodes: Callable[[str], Obj | None],
    engaged: set[str],
    resting: set[str],
    selectors: Selectors,
    place: Place = Place(),  # noqa: B008 (frozen)
) -> tuple[list[AdvertisedOffer], InventoryCounts]:
    """Offers and the counts beside them.

    ``engaged`` are devices of leases here, ``resting`` those that cool down (both ``driver/pool/name``); ``place``
    fills what neither policy nor node says.
    """
    excluded: Counter[str] = Counter()
    lots: dict[str, _Lot] = {}
    matched: dict[tuple[str, str], int] = defaultdict(int)
    lendable: list[tuple[DeviceState, tuple[str, LendingPolicySpec, LendingRule]]] = []
    free = 0
    for device in devices:
        found = rule_for(device, policies, selectors)
        if found is not None:
            matched[found[0], found[2].name] += 1
        why = _obstacle(device, nodes, engaged, resting)
        free += device.state == FREE and why is None
        if why is None and found is None:
            why = "no LendingPolicy covers it"
        elif why is None and found is not None and (not found[2].lend or found[1].suspended):
            why = "its LendingPolicy doesn't lend it now"
        if why is not None:
            excluded[why] += 1
        elif found is not None:
            lendable.append((device, found))
    promised = [device for device in devices if device.state == FREE and ref_of(device) in engaged]
    apart = {device.id for device in together((device for device, _ in lendable), beside=promised)}
    for device, found in lendable:
        if device.id in apart:
            _sort_in(device, *found, lots=lots, place=place)
        else:
            excluded["shares its hardware with devices on offer"] += 1
    made, kept_back = _priced(lots, matched, excluded)
    states = Counter(device.state for device in devices)
    lent = sum(ref_of(device) in engaged for device in devices)
    counts = InventoryCounts(
        total=len(devices),
        free=free,
        lent=lent,
        allocated=sum(device.state == ALLOCATED and ref_of(device) not in engaged for device in devices),
        kept_back=kept_back,
        unusable=len(devices) - states[FREE] - states[ALLOCATED],
        excluded=tuple(Excluded(reason=why, devices=n) for why, n in excluded.most_common(MOST_REASONS)),
    )
    return made, counts


def ref_of(device: DeviceState) -> str:
    return f"{device.driver}/{device.pool}/{device.name}"


def _obstacle(
    device: DeviceState, nodes: Callable[[str], Obj | None], engaged: set[str], resting: set[str]
) -> str | None:
    name = ref_of(device)
    if name in engaged:
        return "lent, or being lent"
    if device.state != FREE:
        return device.state if device.state == ALLOCATED else f"{device.state}: {device.reason}"[:200]
    if device.pin is None:
        return "nothing it publishes tells it from its neighbours"
    if name in resting:
        return "cooling down after a lease"
    return _node_obstacle(nodes(device.node)) if device.node else None


def _node_obstacle(node: Obj | None) -> str | None:
    """A slice outlives its driver and its machine (k8s 141912), so the node has to be alive as well."""
    if node is None:
        return "its node is gone"
    if node.get("spec", {}).get("unschedulable"):
        return "its node is cordoned"
    for condition in node.get("status", {}).get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            return "its node is not ready"
    return None


def _sort_in(
    device: DeviceState,
    policy: str,
    spec: LendingPolicySpec,
    rule: LendingRule,
    *,
    lots: dict[str, _Lot],
    place: Place,
) -> None:
    said = device.declared
    where = Place(
        region=spec.place.region or said.region or place.region,
        jurisdiction=spec.place.jurisdiction or place.jurisdiction,
        zone=spec.place.zone or said.zone or place.zone,
        provider=spec.place.provider or said.provider or place.provider,
    )
    secret = Confidential.model_validate({"tee": said.tee, "gpu": said.gpu_confidential})
    name = _name(policy, rule, device, where, secret)
    lot = lots.get(name)
    if lot is None:
        lot = lots[name] = _Lot(policy, spec, rule, where, secret, device)
    lot.devices.append(device)


def _priced(
    lots: Mapping[str, _Lot], matched: Mapping[tuple[str, str], int], excluded: Counter[str]
) -> tuple[list[AdvertisedOffer], int]:
    """Offers from lots, less what each rule keeps back over all its lots."""
    kept = 0
    owed: dict[tuple[str, str], int] = {}
    made = []
    for name in sorted(lots):
        lot = lots[name]
        by_rule = (lot.policy, lot.rule.name)
        if by_rule not in owed:
            percent = -(-matched[by_rule] * lot.rule.keep_back.percent // 100)
            owed[by_rule] = max(lot.rule.keep_back.devices, percent)
        for unit, devices in _units(lot):
            taken = min(len(devices), -(-owed[by_rule] // unit) * unit)
            owed[by_rule] = max(0, owed[by_rule] - taken)
            kept += taken
            lendable = devices[: len(devices) - taken]
            offer = _offer(name if unit == 1 else f"{name}-x{unit}", lot, unit, lendable, excluded)
            if offer is not None:
                made.append(offer)
    if kept:
        excluded["kept back"] += kept
    return made[:MAX_OFFERS], kept


def _units(lot: _Lot) -> Iterable[tuple[int, list[DeviceState]]]:
    """Devices by the number that can only be lent together: one, or all of a node; whole units follow each other."""
    ordered = sorted(lot.devices, key=lambda device: (device.node or "", device.driver, device.pool, device.name))
    if lot.sample.identity.lendable_unit == "device":
        return [(1, ordered)]
    nodes: dict[str | None, list[DeviceState]] = defaultdict(list)
    for device in ordered:
        nodes[device.node].append(device)
    sizes: dict[int, list[DeviceState]] = defaultdict(list)
    for group in nodes.values():
        sizes[len(group)] += group
    return sorted(sizes.items())


def _offer(
    name: str, lot: _Lot, unit: int, devices: Sequence[DeviceState], excluded: Counter[str]
) -> AdvertisedOffer | None:
    sample, rule = lot.sample, lot.rule
    offered = []
    for device in devices[:MAX_DEVICES_AN_OFFER]:
        try:
            offered.append(
                OfferedDevice(
                    driver=device.driver, pool=device.pool, name=device.name, node=device.node, key=device.key or None
                )
            )
        except ValidationError:
            excluded["its name can't be passed on"] += 1
    if not offered or rule.price is None:
        return None
    try:
        return AdvertisedOffer.model_validate(
            {
                "name": name,
                "policy": lot.policy,
                "kind": Kind(
                    driver=sample.driver,
                    model=sample.identity.model[:128],
                    memory_bytes=sample.identity.memory_bytes,
                    partition=sample.identity.partition or None,
                    attributes={
                        **{key: dict(value) for key, value in sample.identity.kind_attributes.items()},
                        **sample.declared.attributes(),
                    },
                    capacity={key: dict(value) for key, value in sample.identity.kind_capacity.items()},
                ),
                "price": rule.price,
                "terms": _terms(rule),
                "place": lot.place,
                "confidential": lot.confidential,
                "unit": unit,
                "devices": tuple(offered),
            }
        )
    except ValidationError:
        excluded["its kind can't be described"] += len(offered)
        return None


def _terms(rule: LendingRule) -> Terms:
    return Terms.model_construct(
        max_duration=rule.max_duration,
        min_duration=rule.min_duration,
        reclaim_notice=rule.reclaim_notice,
        minimum_runtime=rule.minimum_runtime,
        allowed_borrowers=rule.allowed_borrowers,
    )


def _name(policy: str, rule: LendingRule, device: DeviceState, place: Place, confidential: Confidential) -> str:
    """Readable in front, exact behind: the same kind, price, terms and place have the same name for ever."""
    exact = "\n".join(
        (
            policy,
            rule.model_dump_json(exclude={"keep_back", "selector", "driver", "model"}),
            device.driver,
            device.kind,
            # What nobody says changes no name: offers made before it could be said keep theirs.
            place.model_dump_json(exclude={"jurisdiction"} if place.jurisdiction is None else None),
            confidential.model_dump_json(),
            *(f"{name}={value}" for name, value in device.declared.attributes().items()),
        )
    )
    digest = hashlib.sha256(exact.encode()).hexdigest()[:8]
    words = "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in device.identity.model.lower()
    )
    slug = "-".join(part for part in words.split("-") if part)[:40].strip("-")
    return f"{slug or 'device'}-{digest}"
