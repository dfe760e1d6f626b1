"""Device selectors: CEL expressions evaluated as kube-scheduler evaluates them.

The Kubernetes environment (KEP-4381; its reference is ``k8s.io/dynamic-resource-allocation/cel``): one variable
``device`` with ``driver``, ``attributes[domain].name``, ``capacity[domain].name`` and ``allowMultipleAllocations``;
``quantity()`` and ``semver()`` with their methods; optionals; ``cel.bind``. A domain nobody published looks like an
empty map, and an error while evaluating is an error of the whole allocation, not a "no": callers decide.

This is the only module that knows the CEL library. Quantities and versions travel through it as messages of our own
with one text field in canonical form, so that ``==`` on them means equality of the amount.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from broker.dra import cel_ast, cel_cost, quantity, semver
from broker.dra.model import AttributeValue, DeviceView, Version
from broker.dra.quantity import Quantity
from broker.dra.semver import Semver

MAX_EXPRESSION_BYTES = 10 * 1024
_FIELD = "canonical_form_"
_MAPS = {"device.attributes": "@attributes", "device.capacity": "@capacity"}
_LOOKUPS = {"_[_]", "_[?_]", "_?._"}
_INT64 = range(-(2**63), 2**63)


class BadSelector(ValueError):
    """The expression does not compile, is too long, or could cost too much; the message says which."""


class SelectorError(RuntimeError):
    """Evaluating the expression on a device failed; Kubernetes gives up the whole allocation then."""


class Selector:
    """A compiled selector."""

    def __init__(self, expression: str, program: Any, *, lookups: frozenset[str] | None, lists: bool) -> None:
        self.expression = expression
        self._program = program
        self._domains = lookups
        self._lists = lists

    def matches(self, device: DeviceView) -> bool:
        """Whether the device is wanted.

        Raises:
            SelectorError: evaluation failed, the result is no boolean, or an attribute of the device is unreadable.
        """
        data = _device_data(device, lists=self._lists)
        missing = self._domains - data["@attributes"].keys() if self._domains else None
        if missing or (self._domains and not self._domains <= data["@capacity"].keys()):
            data = dict(data)
            for name in _MAPS.values():
                data[name] = dict.fromkeys(self._domains or (), _NOTHING) | data[name]
        try:
            result = self._program.eval(data=data)
            kind, value = result.type().name(), result.value()
        except (RuntimeError, TypeError, ValueError) as error:
            raise SelectorError(_first_line(error)) from None
        if kind != "BOOL":
            raise SelectorError(_first_line(value) if kind == "ERROR" else f"the result is {kind}, not BOOL")
        return bool(value)


@lru_cache(maxsize=4096)
def compile_selector(expression: str, *, lists: bool = False) -> Selector:
    """Compile an expression; compiled ones are kept.

    Args:
        expression: at most 10 KiB; must give a boolean, or a value whose kind only the device knows.
        lists: whether attributes may be lists (the DRAListTypeAttributes feature, with its ``includes``).

    Raises:
        BadSelector: it does not compile, or its worst case costs more than Kubernetes allows.
    """
    try:
        encoded = len(expression.encode())
    except UnicodeEncodeError:
        raise BadSelector("the expression is not valid Unicode") from None
    if encoded > MAX_EXPRESSION_BYTES:
        raise BadSelector(f"the expression has {encoded} bytes, at most {MAX_EXPRESSION_BYTES} are allowed")
    env = _environment(lists)
    try:
        program = env.compile(expression)
        parsed = cel_ast.parse(program.serialize())
        cost = cel_cost.worst_case(parsed.value.expr)
    except RecursionError:
        raise BadSelector("the expression is nested too deeply") from None
    except (RuntimeError, ValueError) as error:
        raise BadSelector(_first_line(error)) from None
    if cost > cel_cost.LIMIT:
        raise BadSelector(f"the expression could cost more than {cel_cost.LIMIT} units to evaluate")
    kind = program.return_type().name()
    if kind not in ("BOOL", "DYN"):
        raise BadSelector(f"the expression gives {kind}, not BOOL")
    lookups, moved = _domain_lookups(parsed.value.expr)
    if moved:
        for name, inner in _MAPS.items():
            nodes = [node for node in moved if node.ident_expr.name == name]
            serialised = cel_ast.rename(parsed, nodes, inner)
        program = env.deserialize(serialised)
    return Selector(expression, program, lookups=lookups, lists=lists)


def unreadable(device: DeviceView, *, lists: bool = False) -> str:
    """Why no selector at all can be evaluated on a device (an attribute of an unknown kind); empty when all is well."""
    try:
        _device_data(device, lists=lists)
    except SelectorError as error:
        return str(error)
    return ""


def _domain_lookups(root: Any) -> tuple[frozenset[str], list[Any]]:
    """The domains an expression may look up, and the nodes that look them up.

    Those nodes are pointed at maps in which every such domain exists. Asking the maps themselves (``in``, ``size``,
    going through them) stays with the maps as published, as in Kubernetes.
    """
    plain: set[int] = set()
    found: list[Any] = []
    direct: set[str] = set()
    constants: set[str] = set()
    indirect = False
    looked_up: set[int] = set()
    for node in cel_ast.walk(root):
        kind = cel_ast.kind_of(node)
        if kind == "ident_expr" and node.ident_expr.name in _MAPS:
            found.append(node)
        elif kind == "ident_expr" and node.ident_expr.name.startswith("device.") and kind:
            continue
        elif kind == "const_expr":
            constants.add(node.const_expr.string_value)
        elif kind == "select_expr":
            if node.select_expr.field == _FIELD:
                raise BadSelector("a quantity or version has no fields")
            operand = node.select_expr.operand
            constants.add(node.select_expr.field)
            if _is_map(operand):
                looked_up.add(operand.id)
                direct.add(node.select_expr.field)
        elif kind == "struct_expr" and node.struct_expr.message_name.startswith("kubernetes."):
            raise BadSelector("quantities and versions are made by quantity() and semver()")
        elif kind == "call_expr":
            _note_call(node.call_expr, looked_up, plain, direct)
        elif kind == "comprehension_expr" and _is_map(node.comprehension_expr.iter_range):
            plain.add(node.comprehension_expr.iter_range.id)
    moved = [node for node in found if node.id not in plain]
    indirect = any(node.id not in looked_up for node in moved)
    return frozenset((constants if indirect else direct) - {""}), moved


def _note_call(call: Any, looked_up: set[int], plain: set[int], direct: set[str]) -> None:
    parts = ([call.target] if call.HasField("target") else []) + list(call.args)
    maps = [part for part in parts if _is_map(part)]
    if call.function in _LOOKUPS and maps and parts[0].id == maps[0].id:
        key = parts[1]
        if cel_ast.kind_of(key) == "const_expr":
            looked_up.add(parts[0].id)
            direct.add(key.const_expr.string_value)
    elif call.function in ("@in", "size", "_==_", "_!=_", "in"):
        plain.update(part.id for part in maps)


def _is_map(node: Any) -> bool:
    return cel_ast.kind_of(node) == "ident_expr" and node.ident_expr.name in _MAPS


def _first_line(error: object) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ")[:500]


def _device_data(device: DeviceView, *, lists: bool) -> dict[str, Any]:
    """The variables for one device; made once and kept with it."""
    key = "cel-lists" if lists else "cel"
    data = device.cache.get(key)
    if data is None:
        data = device.cache[key] = _convert(device, lists=lists)
    if isinstance(data, SelectorError):
        raise data
    made: dict[str, Any] = data
    return made


def _convert(device: DeviceView, *, lists: bool) -> dict[str, Any] | SelectorError:
    attributes: dict[str, dict[str, Any]] = {}
    capacity: dict[str, dict[str, Any]] = {}
    for name, value in device.attributes.items():
        domain, short = _split(name, device.driver)
        try:
            attributes.setdefault(domain, {})[short] = _cel_value(value, lists=lists)
        except ValueError as error:
            return SelectorError(f"attribute {name}: {error}")
    for name, amount in device.capacity.items():
        domain, short = _split(name, device.driver)
        capacity.setdefault(domain, {})[short] = _quantity(amount)
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
    if isinstance(value, int) and value in _INT64:
        return value
    if isinstance(value, Version):
        return _version(semver.parse(value.text))
    raise ValueError("unsupported attribute value")


# The environment -----------------------------------------------------------------------------------------------------


def _messages() -> tuple[Any, Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="lendmesh/kubernetes.proto", package="kubernetes", syntax="proto3")
    for name in ("Quantity", "Semver"):
        file.message_type.add(name=name).field.add(name=_FIELD, number=1, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"kubernetes.{name}") for name in ("Quantity", "Semver")]
    return pool, *(message_factory.GetMessageClass(message) for message in found)


_POOL, _QuantityMessage, _SemverMessage = _messages()
_NOTHING: Mapping[str, Any] = {}


def _quantity(amount: Quantity) -> Any:
    return _QuantityMessage(**{_FIELD: str(amount.nanos)})


def _version(version: Semver) -> Any:
    return _SemverMessage(**{_FIELD: version.canonical})


def _amount(message: Any) -> Quantity:
    return Quantity(int(getattr(message, _FIELD) or "0"))


def _parsed(message: Any) -> Semver:
    return semver.parse(getattr(message, _FIELD))


def _accepts(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def accepts(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return accepts


def _as_integer(message: Any) -> int:
    whole = _amount(message).whole
    if whole is None or whole not in _INT64:
        raise ValueError("the quantity is not an integer")
    return whole


def _sign(amount: Quantity) -> int:
    return (amount.nanos > 0) - (amount.nanos < 0)


def _compare(left: Any, right: Any) -> int:
    """-1, 0 or 1; the runtime tells messages apart only as messages, so their kinds are told apart here."""
    if type(left) is not type(right):
        raise ValueError("a quantity and a version cannot be compared")
    read: Callable[[Any], Any] = _amount if isinstance(left, _QuantityMessage) else _parsed
    a, b = read(left), read(right)
    return int(a > b) - int(a < b)


def _includes(target: Any, item: Any) -> bool:
    if not isinstance(target, list):
        return type(target) is type(item) and bool(target == item)
    return any(_includes(element, item) for element in target[:_MAX_INCLUDES] if not isinstance(element, list))


_MAX_INCLUDES = 48


@lru_cache(maxsize=2)
def _environment(lists: bool) -> Any:
    kind = cel.Type
    amount, version = kind("kubernetes.Quantity"), kind("kubernetes.Semver")
    overloads: dict[str, list[Any]] = {}

    def declare(
        name: str, parameters: list[Any], result: Any, body: Callable[..., object] | None, *, member: bool
    ) -> None:
        label = f"{name}_{'_'.join(parameter.name() for parameter in parameters)}".replace(".", "_").lower()
        declared = cel.Overload(label, return_type=result, parameters=parameters, is_member=member, impl=body)
        overloads.setdefault(name, []).append(declared)

    text, integer, boolean, real = kind.STRING, kind.INT, kind.BOOL, kind.DOUBLE
    declare("quantity", [text], amount, lambda t: _quantity(quantity.parse(t)), member=False)
    declare("isQuantity", [text], boolean, _accepts(quantity.parse), member=False)
    declare("semver", [text], version, lambda t: _version(semver.parse(t)), member=False)
    declare("isSemver", [text], boolean, _accepts(semver.parse), member=False)

    def mended(written: str, loose: bool) -> Semver:
        return semver.parse(semver.normalised(written) if loose else written)

    declare("semver", [text, boolean], version, lambda t, loose: _version(mended(t, loose)), member=False)
    declare(
        "isSemver", [text, boolean], boolean, lambda t, loose: _accepts(lambda x: mended(x, loose))(t), member=False
    )
    for own, first in ((amount, True), (version, False)):  # declared for both kinds, implemented once for messages
        declare("compareTo", [own, own], integer, _compare if first else None, member=True)
        declare("isGreaterThan", [own, own], boolean, (lambda a, b: _compare(a, b) > 0) if first else None, member=True)
        declare("isLessThan", [own, own], boolean, (lambda a, b: _compare(a, b) < 0) if first else None, member=True)
    declare("sign", [amount], integer, lambda q: _sign(_amount(q)), member=True)
    declare("isInteger", [amount], boolean, lambda q: _amount(q).whole in _INT64, member=True)
    declare("asInteger", [amount], integer, _as_integer, member=True)
    declare("asApproximateFloat", [amount], real, lambda q: _amount(q).nanos / 10**9, member=True)
    declare("add", [amount, amount], amount, lambda a, b: _quantity(_amount(a) + _amount(b)), member=True)
    declare("add", [amount, integer], amount, lambda a, n: _quantity(_amount(a) + quantity.of_int(n)), member=True)
    declare("sub", [amount, amount], amount, lambda a, b: _quantity(_amount(a) - _amount(b)), member=True)
    declare("sub", [amount, integer], amount, lambda a, n: _quantity(_amount(a) - quantity.of_int(n)), member=True)
    for part in ("major", "minor", "patch"):
        declare(part, [version], integer, lambda v, part=part: getattr(_parsed(v), part), member=True)
    if lists:
        declare("includes", [kind.DYN, kind.DYN], boolean, _includes, member=True)
    maps = {
        "attributes": kind.Map(text, kind.Map(text, kind.DYN)),
        "capacity": kind.Map(text, kind.Map(text, amount)),
    }
    variables = {"device.driver": text, "device.allowMultipleAllocations": boolean}
    for name, declared in maps.items():
        variables |= {f"device.{name}": declared, f"@{name}": declared}
    return cel.NewEnv(
        _POOL,
        variables=variables,
        extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings(), ext_bindings.ExtBindings()],
        functions=[cel.FunctionDecl(name, declared) for name, declared in overloads.items()],
    )
