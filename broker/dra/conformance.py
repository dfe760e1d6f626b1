"""Agreement with the reference: do we answer recorded allocator cases as kube-scheduler's allocator did?

A case holds slices, classes, claims, a node and what is taken, and the reference's answers: whether the claims can be
allocated, and which devices a lone, untolerating one-device claim would get (``freeAlone``). Our picks may differ from
the reference's; what we pick is checked by ``validity.py``, which shares no code with the search.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.dra import pools as pooling
from broker.dra import validity
from broker.dra.allocator import Unsatisfiable, allocate
from broker.dra.availability import free_on
from broker.dra.model import Allocated, Claim, DeviceId, Features
from broker.dra.normalise import read_claim, read_class, read_node, read_slice
from broker.dra.quantity import parse

_GATES = {
    "DRAAdminAccess": "admin_access",
    "DRAPrioritizedList": "prioritized_list",
    "DRAPartitionableDevices": "partitionable_devices",
    "DRADeviceTaints": "device_taints",
    "DRADeviceBindingConditions+DRAResourceClaimDeviceStatus": "binding_conditions",
    "DRAConsumableCapacity": "consumable_capacity",
    "DRAListTypeAttributes": "list_attributes",
}
_NO_GATES = dict.fromkeys(_GATES.values(), False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: what differs, in words; nothing when all agrees."""

    name: str
    category: str
    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True)
class Report:
    """All cases of a run."""

    outcomes: tuple[Outcome, ...]

    @property
    def agreed(self) -> int:
        return sum(outcome.agrees for outcome in self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether every case agrees (and there was one)."""
        return bool(self.outcomes) and self.agreed == len(self.outcomes)

    def lines(self) -> list[str]:
        """A table by category, what differs, and last ``agree N/M``."""
        by_category: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            by_category.setdefault(outcome.category, []).append(outcome)
        width = max([len(category) for category in by_category] + [8])
        table = [f"{'category':<{width}}  agree  cases"]
        for category, outcomes in sorted(by_category.items()):
            table.append(f"{category:<{width}}  {sum(o.agrees for o in outcomes):>5}  {len(outcomes):>5}")
        differing = [f"{o.name}: {difference}" for o in self.outcomes for difference in o.differences]
        noted = [f"{o.name}: {note}" for o in self.outcomes for note in o.notes]
        return [*table, *noted, *differing, f"agree {self.agreed}/{len(self.outcomes)}"]


def run(paths: Iterable[str | Path]) -> Report:
    """Play all cases of the files (``.json``, ``.json.gz``).

    Raises:
        OSError: a file cannot be read.
        ValueError: a file holds no list of cases.
    """
    return Report(tuple(play(case) for path in paths for case in load(path)))


def load(path: str | Path) -> list[dict[str, Any]]:
    """The cases of one file."""
    raw = Path(path).read_bytes()
    cases = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise ValueError(f"{path}: expected a list of cases")
    return cases


@dataclass(frozen=True, eq=False)
class Setting:
    """A case made ready to ask questions of."""

    raw: Mapping[str, Any]
    features: Features = field(init=False)

    def __post_init__(self) -> None:
        gates = {_GATES[name]: True for name in self.raw.get("features") or [] if name in _GATES}
        object.__setattr__(self, "features", Features(**(_NO_GATES | gates)))

    def inputs(self) -> dict[str, Any]:
        """What ``allocate`` needs beside the claims."""
        slices = [read_slice(raw) for raw in self.raw.get("resourceSlices") or []]
        classes = [read_class(raw) for raw in self.raw.get("deviceClasses") or []]
        return {
            "node": read_node(self.raw["node"]),
            "pools": list(pooling.assemble(slices, features=self.features).values()),
            "allocated": self._allocated(),
            "classes": {one.name: one for one in classes},
            "features": self.features,
        }

    def claims(self) -> list[Claim]:
        return [read_claim(raw) for raw in self.raw.get("claims") or []]

    def _allocated(self) -> Allocated:
        consumed = {
            _device_id(name): {key: parse(value) for key, value in amounts.items()}
            for name, amounts in (self.raw.get("aggregatedCapacity") or {}).items()
        }
        shared = (name.rsplit("/", 1)[0] for name in self.raw.get("allocatedSharedDeviceIDs") or [])
        dedicated = self.raw.get("allocatedDevices") or []
        return Allocated(frozenset(map(_device_id, dedicated)), frozenset(map(_device_id, shared)), consumed)


def play(case: Mapping[str, Any]) -> Outcome:
    """Our answers to one case, beside the reference's."""
    category = str(case.get("category") or "+".join(case.get("features") or []) or "plain")
    name = str(case.get("name"))
    try:
        return _compare(case, name, category)
    except Exception as error:  # a case must never end the run: whatever it is, it is no agreement
        return Outcome(name, category, (f"cannot be played: {type(error).__name__}: {error}",))


def _compare(case: Mapping[str, Any], name: str, category: str) -> Outcome:
    setting, expected = Setting(case), case["expect"]
    inputs, claims = setting.inputs(), setting.claims()
    differences: list[str] = []
    notes: list[str] = []
    answer = allocate(claims=claims, **inputs)
    possible = not isinstance(answer, Unsatisfiable)
    if possible != bool(expected.get("allocatable")):
        why = f" ({'; '.join(answer.reasons)})" if isinstance(answer, Unsatisfiable) else ""
        differences.append(f"allocatable: reference {bool(expected.get('allocatable'))}, ours {possible}{why}")
    elif not isinstance(answer, Unsatisfiable):
        differences += [f"our picks are not valid: {problem}" for problem in validity.problems(case, answer)]
    free, reference = _free_alone(inputs), set(expected.get("freeAlone") or [])
    lost = _undecidable(case, free ^ reference, reference)
    if lost:
        notes.append(f"{', '.join(sorted(lost))}: recorded exactly like a device with the other answer; not compared")
        free, reference = free - lost, reference - lost
    if free != reference:
        differences.append(
            f"free alone: ours lacks {sorted(reference - free)}, has too many {sorted(free - reference)}"
        )
    return Outcome(name, category, tuple(differences), tuple(notes))


def _free_alone(inputs: Mapping[str, Any]) -> set[str]:
    views = pooling.on_node(inputs["pools"], inputs["node"], features=inputs["features"])
    free = free_on(views, allocated=inputs["allocated"], features=inputs["features"])
    return {str(device) for device in free}


def _undecidable(case: Mapping[str, Any], differing: set[str], reference: set[str]) -> set[str]:
    """Devices that no reader of the record can answer rightly.

    Recording went through JSON that leaves out empty lists. So a device with an empty list attribute is recorded like
    one with an attribute of an unknown kind, though the reference can use only the first. Where two devices of one
    slice are recorded alike but for the name, are both untouched, and have opposite answers, the record has lost why.
    """
    taken = {str(name) for name in case.get("allocatedDevices") or []} | set(case.get("aggregatedCapacity") or {})
    lost: set[str] = set()
    for part in (raw["spec"] for raw in case.get("resourceSlices") or []):
        known: dict[str, set[str]] = {}
        for device in part.get("devices") or []:
            body = json.dumps({key: value for key, value in device.items() if key != "name"}, sort_keys=True)
            known.setdefault(body, set()).add(f"{part['driver']}/{part['pool']['name']}/{device['name']}")
        for alike in (names - taken for names in known.values()):
            if alike & reference and alike - reference:
                lost |= alike & differing
    return lost


def _device_id(name: str) -> DeviceId:
    driver, pool, device = _split(name)
    return DeviceId(driver, pool, device)


def _split(name: str) -> Sequence[str]:
    driver, _, rest = name.partition("/")
    pool, _, device = rest.rpartition("/")
    return driver, pool, device
