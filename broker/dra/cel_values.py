"""The values of the Kubernetes CEL environment: a device as variables, quantities and versions as messages.

A quantity or version travels through CEL as a message of our own with one text field in canonical form, so that ``==``
on two of them is equality of what they stand for, and so that the type checker tells them from other values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from broker.dra import semver
from broker.dra.model import AttributeValue, DeviceView, Version
from broker.dra.quantity import Quantity
from broker.dra.semver import Semver

FIELD = "canonical_form_"
INT64 = range(-(2**63), 2**63)
_MAX_INCLUDES = 48  # elements of a list that Kubernetes looks at


class Unreadable(ValueError):
    """An attribute of the device has a value that no selector can be given."""


def fingerprint(device: DeviceView) -> bytes:
    """What a selector can see of a device, in 16 bytes; kept with the device."""
    made: bytes | None = device.cache.get("fingerprint")
    if made is None:
        seen = (device.driver, device.shareable, sorted(device.attributes.items()), sorted(device.capacity.items()))
        told = repr(seen).encode(errors="surrogatepass")
        made = device.cache["fingerprint"] = hashlib.blake2b(told, digest_size=16).digest()
    return made


def variables(device: DeviceView, *, lists: bool) -> dict[str, Any]:
    """The variables for one device; made once and kept with it."""
    key = "cel-lists" if lists else "cel"
    data = device.cache.get(key)
    if data is None:
        data = device.cache[key] = _convert(device, lists=lists)
    if isinstance(data, Unreadable):
        raise data
    made: dict[str, Any] = data
    return made


def unreadable(device: DeviceView, *, lists: bool = False) -> str:
    """Why no selector at all can be evaluated on a device (an attribute of an unknown kind); empty when all is well."""
    for name, value in device.attributes.items():
        if not isinstance(value, str | bool):
            try:
                _cel_value(value, lists=lists)
            except ValueError as error:
                return f"attribute {name}: {error}"
    return ""


def _convert(device: DeviceView, *, lists: bool) -> dict[str, Any] | Unreadable:
    attributes: dict[str, dict[str, Any]] = {}
    capacity: dict[str, dict[str, Any]] = {}
    for name, value in device.attributes.items():
        domain, short = _split(name, device.driver)
        try:
            attributes.setdefault(domain, {})[short] = _cel_value(value, lists=lists)
        except ValueError as error:
            return Unreadable(f"attribute {name}: {error}")
    for name, amount in device.capacity.items():
        domain, short = _split(name, device.driver)
        capacity.setdefault(domain, {})[short] = make_quantity(amount)
    return {
        "device.driver": device.driver,
        "device.allowMultipleAllocations": device.shareable,
        "device.attributes": attributes,
        "device.capacity": capacity,
        "@attributes": attributes,
        "@capacity": capacity,
    }


def _split(name: str, driver: str) -> tuple[str, str]:
    domain, slash, short = name.partition("/")
    return (domain, short) if slash else (driver, name)


def _cel_value(value: AttributeValue, *, lists: bool) -> Any:
    if isinstance(value, tuple) and lists:
        return [_cel_value(item, lists=lists) for item in value]
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int) and value in INT64:
        return value
    if isinstance(value, Version):
        return make_version(semver.parse(value.text))
    raise ValueError("unsupported attribute value")


def _messages() -> tuple[Any, Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="lendmesh/kubernetes.proto", package="kubernetes", syntax="proto3")
    for name in ("Quantity", "Semver"):
        file.message_type.add(name=name).field.add(name=FIELD, number=1, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"kubernetes.{name}") for name in ("Quantity", "Semver")]
    return pool, *(message_factory.GetMessageClass(message) for message in found)


POOL, _QuantityMessage, _SemverMessage = _messages()


# Messages are made once for an amount: the runtime never lets go of what a function returned to it.
@lru_cache(maxsize=16_384)
def make_quantity(amount: Quantity) -> Any:
    return _QuantityMessage(**{FIELD: str(amount.nanos)})


@lru_cache(maxsize=16_384)
def make_version(version: Semver) -> Any:
    return _SemverMessage(**{FIELD: version.canonical})


def amount_of(message: Any) -> Quantity:
    return Quantity(int(getattr(message, FIELD) or "0"))


def version_of(message: Any) -> Semver:
    return semver.parse(getattr(message, FIELD))


def accepts(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def does(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return does


def as_integer(message: Any) -> int:
    whole = amount_of(message).whole
    if whole is None or whole not in INT64:
        raise ValueError("the quantity is not an integer")
    return whole


def sign(message: Any) -> int:
    nanos = amount_of(message).nanos
    return int(nanos > 0) - int(nanos < 0)


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1; the runtime tells messages apart only as messages, so their kinds are told apart here."""
    if type(left) is not type(right):
        raise ValueError("a quantity and a version cannot be compared")
    read: Callable[[Any], Any] = amount_of if isinstance(left, _QuantityMessage) else version_of
    a, b = read(left), read(right)
    return int(a > b) - int(a < b)


def same(left: Any, right: Any) -> bool:
    """Equality as CEL has it: numbers by value, everything else by kind as well; true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    return type(left) is type(right) and bool(left == right)


def includes(target: Any, item: Any) -> bool:
    if not isinstance(target, list):
        return same(target, item)
    return any(same(element, item) for element in target[:_MAX_INCLUDES])


def contains_all(whole: list[Any], part: list[Any]) -> bool:
    return all(any(same(item, other) for other in whole) for item in part)


def shares_any(left: list[Any], right: list[Any]) -> bool:
    return any(same(item, other) for item in left for other in right)


def is_sorted(items: list[Any]) -> bool:
    return all(left <= right for left, right in pairwise(items))
