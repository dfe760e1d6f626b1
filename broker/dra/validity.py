"""Is an allocation valid? Checked on the raw objects of a case, with no code of the allocator.

Whether devices were chosen well needs judgement, whether they may be used together does not: every device exists in a
complete generation, may be used on the node, is not taken and not used twice; counts are as asked; class and selectors
want it; taints are tolerated; counters and capacities add up; constraints hold. Only CEL evaluation is shared with the
allocator. Written for reading beside the Kubernetes documentation, not for speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from broker.dra.cel import compile_selector
from broker.dra.model import Allocation
from broker.dra.normalise import read_view

Raw = Mapping[str, Any]
_FACTORS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_FACTORS_10 = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def problems(case: Raw, answer: Sequence[Allocation]) -> list[str]:
    """What is wrong with an answer to a case, in words; empty when nothing is."""
    return list(_Checker(case).check([allocation.to_raw() for allocation in answer]))


class _Checker:
    def __init__(self, case: Raw) -> None:
        self.case = case
        self.node = case["node"]["metadata"]
        self.devices: dict[str, tuple[Raw, Raw]] = {}  # name of a usable device: (its slice's spec, the device)
        self.published: dict[str, list[Raw]] = {}  # by pool: specs of the generation that counts on the node
        for spec in (part["spec"] for part in case.get("resourceSlices") or []):
            self.published.setdefault(f"{spec['driver']}/{spec['pool']['name']}", []).append(spec)
        for pool, specs in self.published.items():
            here = [spec for spec in specs if self._concerns(spec)]
            newest = max((spec["pool"]["generation"] for spec in here), default=None)
            self.published[pool] = [spec for spec in specs if spec["pool"]["generation"] == newest]
            for spec in here:
                if spec["pool"]["generation"] == newest:
                    for device in spec.get("devices") or []:
                        if self._usable(spec, device):
                            self.devices[f"{pool}/{device['name']}"] = (spec, device)
        self.features = " ".join(case.get("features") or [])

    def check(self, answer: Sequence[Raw]) -> Iterator[str]:
        claims = self.case.get("claims") or []
        if len(answer) != len(claims):
            yield f"{len(answer)} allocations for {len(claims)} claims"
            return
        picks: list[tuple[str, Raw, Raw]] = []  # device, ask, result
        for claim, allocation in zip(claims, answer, strict=True):
            results = allocation["devices"]["results"]
            if len(results) > 32:
                yield f"{len(results)} devices in one claim"
            mine: list[tuple[str, Raw, Raw]] = []
            for request in claim["spec"]["devices"].get("requests") or []:
                yield from self._request(request, results, mine)
            if len(mine) != len(results):
                yield "results for requests that the claim does not have"
            yield from self._constraints(claim["spec"]["devices"].get("constraints") or [], mine)
            alone = [name for name, _, _ in mine if not self._shareable(name)]
            if len(set(alone)) != len(alone):
                yield "a claim has a device twice"
            picks += mine
        for name, ask, _ in picks:
            yield from self._one(name, ask)
        yield from self._together(picks)

    def _request(self, request: Raw, results: Sequence[Raw], found: list[tuple[str, Raw, Raw]]) -> Iterator[str]:
        asks = {request["name"]: request["exactly"]} if request.get("exactly") else {}
        asks |= {f"{request['name']}/{one['name']}": one for one in request.get("firstAvailable") or []}
        chosen = {name: [r for r in results if r["request"] == name] for name in asks}
        answered = [name for name, devices in chosen.items() if devices]
        if len(answered) != 1:
            yield f"request {request['name']} is answered by {answered}"
            return
        name = answered[0]
        ask, devices = asks[name], chosen[name]
        picked = [f"{r['driver']}/{r['pool']}/{r['device']}" for r in devices]
        if ask.get("allocationMode") == "All":
            wanted = {device for device in self.devices if self._wanted(device, ask)}
            if not set(picked) <= wanted:
                yield f"request {name}: not only devices that match"
        elif len(picked) != ask.get("count", 1):
            yield f"request {name}: {len(picked)} devices instead of {ask.get('count', 1)}"
        found += [(device, ask, result) for device, result in zip(picked, devices, strict=True)]

    def _one(self, name: str, ask: Raw) -> Iterator[str]:
        if name not in self.devices:
            yield f"{name} cannot be used on the node"
            return
        spec, device = self.devices[name]
        whole = self.published[f"{spec['driver']}/{spec['pool']['name']}"]
        seen = [part for part in whole if self._concerns(part)]
        if spec["pool"]["resourceSliceCount"] not in (len(whole), len(seen)):
            yield f"{name}: its pool is incomplete"
        if not ask.get("adminAccess") and name in (self.case.get("allocatedDevices") or []):
            yield f"{name} is taken"
        if "DeviceTaints" in self.features:
            for taint in device.get("taints") or []:
                if taint["effect"] in ("NoSchedule", "NoExecute") and not any(
                    _tolerates(toleration, taint) for toleration in ask.get("tolerations") or []
                ):
                    yield f"{name}: taint {taint['key']} is not tolerated"
        if not self._wanted(name, ask):
            yield f"{name} is not what the request selects"

    def _together(self, picks: Sequence[tuple[str, Raw, Raw]]) -> Iterator[str]:
        exclusive = Counter(name for name, ask, _ in picks if not ask.get("adminAccess") and not self._shareable(name))
        yield from (f"{name} is used twice" for name, times in exclusive.items() if times > 1)
        yield from self._counters({name for name, _, _ in picks if name in self.devices})
        taken = {
            name: {key: _amount(value) for key, value in amounts.items()}
            for name, amounts in (self.case.get("aggregatedCapacity") or {}).items()
        }
        for name, _, result in picks:
            for key, value in (result.get("consumedCapacity") or {}).items():
                sums = taken.setdefault(name, {})
                sums[key] = sums.get(key, Fraction(0)) + _amount(value)
        for name in {name for name, _, result in picks if result.get("consumedCapacity")} & self.devices.keys():
            for key, capacity in (self.devices[name][1].get("capacity") or {}).items():
                if taken[name].get(key, Fraction(0)) > _amount(capacity["value"]):
                    yield f"{name}: more than all of {key} is consumed"

    def _counters(self, picked: set[str]) -> Iterator[str]:
        busy = picked | set(self.case.get("allocatedDevices") or []) | set(self.case.get("aggregatedCapacity") or {})
        for pool in {name.rpartition("/")[0] for name in picked}:
            left = {
                (one["name"], key): _amount(value["value"])
                for spec in self.published[pool]
                for one in spec.get("sharedCounters") or []
                for key, value in one["counters"].items()
            }
            touched = set()
            for device in (device for spec in self.published[pool] for device in spec.get("devices") or []):
                for use in device.get("consumesCounters") or []:
                    for key, value in use["counters"].items() if f"{pool}/{device['name']}" in busy else ():
                        left[use["counterSet"], key] -= _amount(value["value"])
                        if f"{pool}/{device['name']}" in picked:
                            touched.add((use["counterSet"], key))
            yield from (f"{pool}: counter {key} is overdrawn" for key in touched if left[key] < 0)

    def _constraints(self, constraints: Sequence[Raw], picks: Sequence[tuple[str, Raw, Raw]]) -> Iterator[str]:
        for constraint in constraints:
            name = constraint.get("matchAttribute") or constraint["distinctAttribute"]
            about = constraint.get("requests") or []
            sets = [
                self._values(device, name)
                for device, _, result in picks
                if not about or result["request"] in about or result["request"].partition("/")[0] in about
            ]
            if not all(sets):
                yield f"a device without {name} under a constraint on it"
            elif constraint.get("matchAttribute") and sets and not set.intersection(*sets):
                yield f"devices differ in {name}"
            elif constraint.get("distinctAttribute") and sum(map(len, sets)) != len(set().union(*sets)):
                yield f"devices share a {name}"

    def _values(self, device: str, name: str) -> set[tuple[str, str]]:
        if device not in self.devices:
            return set()
        spec, raw = self.devices[device]
        attributes = raw.get("attributes") or {}
        domain, _, short = name.partition("/")
        value = attributes.get(name) or (attributes.get(short) if domain == spec["driver"] else None) or {}
        return {
            (kind.rstrip("s"), str(v)) for kind, vs in value.items() for v in (vs if isinstance(vs, list) else [vs])
        }

    def _wanted(self, name: str, ask: Raw) -> bool:
        spec, device = self.devices[name]
        classes = {one["metadata"]["name"]: one["spec"] for one in self.case.get("deviceClasses") or []}
        selectors = [*(classes[ask["deviceClassName"]].get("selectors") or []), *(ask.get("selectors") or [])]
        view = read_view(
            driver=spec["driver"],
            attributes=device.get("attributes"),
            capacity=device.get("capacity"),
            shareable=self._shareable(name),
        )
        lists = "ListTypeAttributes" in self.features
        return all(compile_selector(one["cel"]["expression"], lists=lists).matches(view) for one in selectors)

    def _shareable(self, name: str) -> bool:
        return name in self.devices and bool(self.devices[name][1].get("allowMultipleAllocations"))

    def _concerns(self, spec: Raw) -> bool:
        rules = (spec.get("devices") or []) if spec.get("perDeviceNodeSelection") else [spec]
        return bool(spec.get("sharedCounters")) or any(self._here(rule) for rule in rules)

    def _usable(self, spec: Raw, device: Raw) -> bool:
        return self._here(device if spec.get("perDeviceNodeSelection") else spec)

    def _here(self, rule: Raw) -> bool:
        if rule.get("nodeName"):
            return bool(rule["nodeName"] == self.node["name"])
        terms = (rule.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
        return bool(rule.get("allNodes")) or any(self._term(term) for term in terms)

    def _term(self, term: Raw) -> bool:
        labels = self.node.get("labels") or {}
        lines = [(labels.get(line["key"]), line) for line in term.get("matchExpressions") or []]
        lines += [(self.node["name"], line) for line in term.get("matchFields") or []]
        return bool(lines) and all(_label(value, line) for value, line in lines)


def _label(value: str | None, line: Raw) -> bool:
    values = line.get("values") or []
    answers = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    if line["operator"] in answers:
        return answers[line["operator"]]
    return value is not None and (int(value) > int(values[0])) == (line["operator"] == "Gt") and value != values[0]


def _tolerates(toleration: Raw, taint: Raw) -> bool:
    same = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
    return same and all(toleration.get(key) in (None, "", taint[key]) for key in ("key", "effect"))


def _amount(text: str) -> Fraction:
    text = str(text)
    if text[-2:] in _FACTORS:
        return Fraction(text[:-2]) * _FACTORS[text[-2:]]
    if text[-1] in _FACTORS_10:
        return Fraction(text[:-1]) * Fraction(10) ** _FACTORS_10[text[-1]]
    return Fraction(text)
