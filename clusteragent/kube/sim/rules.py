"""What an API server insists on, for the kinds and the mistakes that matter here. Pure; refusals are ``KubeError``s.

As seen on Kubernetes 1.36: the texts are the API server's where somebody might read them.
"""

import re
from typing import Any

from broker.dra.cel import BadSelector, compile_selector
from clusteragent.kube.interface import (
    CONFIG_MAPS,
    DEVICE_CLASSES,
    EVENTS,
    NAMESPACES,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Invalid,
    Kind,
    KubeError,
    Obj,
)

RESOURCE_CLAIM_TEMPLATES = Kind("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate")

_STATELESS = {
    kind.plural
    for kind in (CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, EVENTS, DEVICE_CLASSES, RESOURCE_SLICES)
} | {RESOURCE_CLAIM_TEMPLATES.plural}

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_MOST_CONSUMERS = 256
_MOST_DEVICES = 32


def has_status(kind: Kind) -> bool:
    """Whether the kind has a status that only ``…/status`` changes."""
    return kind.plural not in _STATELESS


def custom(kind: Kind) -> bool:
    """Whether the kind comes from a CustomResourceDefinition."""
    return "." in kind.group and not kind.group.endswith(".k8s.io")


def check_metadata(kind: Kind, obj: Obj) -> None:
    """Name and labels. Raises ``Invalid``."""
    name = obj["metadata"].get("name", "")
    if kind.plural == NAMESPACES.plural:
        good = len(name) <= 63 and bool(_LABEL.fullmatch(name))
    elif kind.group == ROLES.group:
        good = bool(name) and "/" not in name and "%" not in name and name not in (".", "..")
    else:
        good = len(name) <= 253 and bool(_SUBDOMAIN.fullmatch(name))
    if not good:
        raise invalid(kind, obj, f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 name is needed')
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise invalid(kind, obj, f'metadata.labels: Invalid value: "{key}={value}"')


def defaulted(kind: Kind, obj: Obj) -> None:
    """Fill in what the API server fills in (in place), for what somebody here reads."""
    if kind.plural == RESOURCE_CLAIMS.plural:
        for request in obj.get("spec", {}).get("devices", {}).get("requests") or ():
            for ask in [request["exactly"]] if "exactly" in request else request.get("firstAvailable") or ():
                ask.setdefault("allocationMode", "ExactCount")
                if ask["allocationMode"] == "ExactCount":
                    ask.setdefault("count", 1)
    elif kind.plural == PODS.plural:
        obj["spec"].setdefault("schedulerName", "default-scheduler")
        obj["spec"].setdefault("terminationGracePeriodSeconds", 30)


def check_new(kind: Kind, obj: Obj) -> None:
    """What a new object must be. Raises ``Invalid``."""
    check_metadata(kind, obj)
    if kind.plural == RESOURCE_CLAIMS.plural:
        _check_claim_spec(obj)


def check_change(kind: Kind, old: Obj, new: Obj) -> None:
    """What a changed object may be. Raises ``Invalid``."""
    check_metadata(kind, new)
    if kind.plural == RESOURCE_CLAIMS.plural and old.get("spec") != new.get("spec"):
        raise invalid(kind, new, "spec: Invalid value: field is immutable")
    if kind.plural == PODS.plural and _fixed(old["spec"]) != _fixed(new["spec"]):
        raise invalid(kind, new, "spec: Forbidden: pod updates may not change fields other than images and tolerations")


def check_status(kind: Kind, old: Obj, new: Obj) -> None:
    """What a changed status may be. Raises ``Invalid``."""
    if kind.plural == RESOURCE_CLAIMS.plural:
        _check_claim_status(old, new)


def settle_status(kind: Kind, new: Obj) -> None:
    """What the API server tidies in a new status (in place): devices of a claim go with its allocation."""
    status = new.get("status")
    if kind.plural == RESOURCE_CLAIMS.plural and isinstance(status, dict):
        for empty in [key for key in ("allocation", "reservedFor", "devices") if key in status and not status[key]]:
            del status[empty]
        if "allocation" not in status:
            status.pop("devices", None)


def invalid(kind: Kind, obj: Obj, what: str) -> KubeError:
    named = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Invalid(422, "Invalid", f'{named} "{obj["metadata"].get("name", "")}" is invalid: {what}')


def _fixed(spec: dict[str, Any]) -> dict[str, Any]:
    fixed = {key: value for key, value in spec.items() if key not in ("tolerations", "activeDeadlineSeconds")}
    for part in ("containers", "initContainers"):
        if part in fixed:
            fixed[part] = [{key: value for key, value in one.items() if key != "image"} for one in fixed[part]]
    return fixed


def _check_claim_spec(claim: Obj) -> None:
    requests = claim.get("spec", {}).get("devices", {}).get("requests") or []
    names: set[str] = set()
    for index, request in enumerate(requests):
        where, name = f"spec.devices.requests[{index}]", request.get("name", "")
        if not _LABEL.fullmatch(name) or len(name) > 63:
            raise invalid(RESOURCE_CLAIMS, claim, f'{where}.name: Invalid value: "{name}"')
        if name in names:
            raise invalid(RESOURCE_CLAIMS, claim, f'{where}.name: Duplicate value: "{name}"')
        names.add(name)
        if ("exactly" in request) == ("firstAvailable" in request):
            raise invalid(
                RESOURCE_CLAIMS, claim, f"{where}: Invalid value: exactly one of exactly, firstAvailable is needed"
            )
        for ask in [request["exactly"]] if "exactly" in request else request["firstAvailable"]:
            _check_ask(claim, where, ask)
    if len(requests) > _MOST_DEVICES:
        raise invalid(RESOURCE_CLAIMS, claim, f"spec.devices.requests: Too many: must have at most {_MOST_DEVICES}")


def _check_ask(claim: Obj, where: str, ask: dict[str, Any]) -> None:
    if not ask.get("deviceClassName"):
        raise invalid(RESOURCE_CLAIMS, claim, f"{where}.deviceClassName: Required value")
    if ask["allocationMode"] == "ExactCount" and ask["count"] < 1:
        raise invalid(RESOURCE_CLAIMS, claim, f"{where}.count: Invalid value: must be greater than zero")
    for selector in ask.get("selectors") or ():
        try:
            compile_selector(selector["cel"]["expression"])
        except BadSelector as mistake:
            raise invalid(RESOURCE_CLAIMS, claim, f"{where}.selectors: Invalid value: {mistake}") from None


def _check_claim_status(old: Obj, new: Obj) -> None:
    before, after = old.get("status") or {}, new.get("status") or {}
    had, has = before.get("allocation"), after.get("allocation")
    if had and has and had != has:
        raise invalid(RESOURCE_CLAIMS, new, "status.allocation: Invalid value: field is immutable")
    consumers = after.get("reservedFor") or []
    if consumers and not has:
        raise invalid(
            RESOURCE_CLAIMS, new, "status.reservedFor: Forbidden: may not be specified when `allocated` is not set"
        )
    if len(consumers) > _MOST_CONSUMERS:
        raise invalid(RESOURCE_CLAIMS, new, f"status.reservedFor: Too many: must have at most {_MOST_CONSUMERS} items")
    known = {consumer["uid"] for consumer in before.get("reservedFor") or ()}
    if old["metadata"].get("deletionTimestamp") and any(consumer["uid"] not in known for consumer in consumers):
        raise invalid(
            RESOURCE_CLAIMS,
            new,
            "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or "
            "`deletionTimestamp` are set",
        )
    if len({consumer["uid"] for consumer in consumers}) != len(consumers):
        raise invalid(RESOURCE_CLAIMS, new, "status.reservedFor: Duplicate value")
    results = (has or {}).get("devices", {}).get("results") or []
    if not had:
        _check_results(new, results)
    allocated = {(result["driver"], result["pool"], result["device"]) for result in results}
    for index, device in enumerate(after.get("devices") or ()):
        if has and (device["driver"], device["pool"], device["device"]) not in allocated:
            raise invalid(
                RESOURCE_CLAIMS,
                new,
                f"status.devices[{index}]: Invalid value: must be an allocated device in the claim",
            )


def _check_results(claim: Obj, results: list[dict[str, Any]]) -> None:
    if len(results) > _MOST_DEVICES:
        raise invalid(RESOURCE_CLAIMS, claim, "status.allocation.devices.results: Too many: must have at most 32 items")
    names: set[str] = set()
    for request in claim["spec"].get("devices", {}).get("requests") or ():
        if "firstAvailable" in request:
            names |= {f"{request['name']}/{ask['name']}" for ask in request["firstAvailable"]}
        else:
            names.add(request["name"])
    for index, result in enumerate(results):
        if result.get("request") not in names:
            raise invalid(
                RESOURCE_CLAIMS,
                claim,
                f'status.allocation.devices.results[{index}].request: Invalid value: "{result.get("request")}": must '
                "be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            )
