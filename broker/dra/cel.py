"""Device selectors: CEL expressions evaluated as kube-scheduler evaluates them.

The Kubernetes environment (KEP-4381; its reference is ``k8s.io/dynamic-resource-allocation/cel``): one variable
``device`` with ``driver``, ``attributes[domain].name``, ``capacity[domain].name`` and ``allowMultipleAllocations``;
``quantity()`` and ``semver()`` with their methods; optionals; ``cel.bind``. A domain nobody published looks like an
empty map, and an error while evaluating is an error of the whole allocation, not a "no": callers decide.

Not there, and refused as undeclared: ``url``, ``ip``, ``cidr``, regular expressions beyond ``matches``, ``indexOf`` of
lists, comprehensions with two variables, and ``device`` as a whole. Expressions nest at most 32 deep.

This is the only module that knows the CEL library.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from threading import Lock
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings

from broker.dra import cel_ast, cel_cost, cel_domains, cel_values, quantity, semver
from broker.dra.cel_values import FIELD, INT64, Unreadable, amount_of, compare, make_quantity, make_version, version_of
from broker.dra.model import DeviceView
from broker.dra.semver import Semver

MAX_EXPRESSION_BYTES = 10 * 1024
_MOST_ANSWERS = 65_536
_MOST_TEXT = 256 * 1024  # characters of the expressions that are kept compiled; that is about 25 MiB of memory
_ANSWERS: dict[tuple[int, bytes], bool | str] = {}
_SERIALS = count()


class BadSelector(ValueError):
    """The expression does not compile, is too long, or could cost too much; the message says which."""


class SelectorError(RuntimeError):
    """Evaluating the expression on a device failed; Kubernetes gives up the whole allocation then."""


class Selector:
    """A compiled selector.

    Answers are remembered by what a device publishes: the same devices are asked about again and again, and the
    runtime keeps some hundred bytes for every call of a function of ours, for ever.
    """

    def __init__(self, expression: str, program: Any, *, lookups: frozenset[str], lists: bool) -> None:
        self.expression = expression
        self._program = program
        self._domains = lookups
        self._lists = lists
        self._serial = next(_SERIALS)

    def matches(self, device: DeviceView) -> bool:
        """Whether the device is wanted.

        Raises:
            SelectorError: evaluation failed, the result is no boolean, or an attribute of the device is unreadable.
        """
        key = (self._serial, cel_values.fingerprint(device))
        answer = _ANSWERS.get(key)
        if answer is None:
            if len(_ANSWERS) >= _MOST_ANSWERS:
                _ANSWERS.clear()
            answer = _ANSWERS[key] = self._evaluate(device)
        if isinstance(answer, str):
            raise SelectorError(answer)
        return answer

    def _evaluate(self, device: DeviceView) -> bool | str:
        """The answer, or as text what went wrong."""
        try:
            data = cel_values.variables(device, lists=self._lists)
        except Unreadable as error:
            return str(error)
        if self._domains:
            named = {domain or device.driver for domain in self._domains}
            data = data | {name: {key: {} for key in named} | data[name] for name in cel_domains.MAPS.values()}
        try:
            result = self._program.eval(data=data)
            kind, value = result.type().name(), result.value()
        except (RuntimeError, TypeError, ValueError) as error:
            return _first_line(error) or "evaluation failed"
        if kind != "BOOL":
            return _first_line(value) or "evaluation failed" if kind == "ERROR" else f"the result is {kind}, not BOOL"
        return bool(value)


class _Kept:
    """The selectors compiled last, as far as their text fits; what is needed again stays."""

    def __init__(self) -> None:
        self._selectors: OrderedDict[tuple[str, bool], Selector] = OrderedDict()
        self._size = 0
        self._turn = Lock()

    def get(self, key: tuple[str, bool]) -> Selector | None:
        with self._turn:
            if key in self._selectors:
                self._selectors.move_to_end(key)
            return self._selectors.get(key)

    def put(self, key: tuple[str, bool], selector: Selector) -> Selector:
        """Keep it; returns the one that is kept when another thread was faster."""
        with self._turn:
            if key in self._selectors:
                return self._selectors[key]
            self._selectors[key] = selector
            self._size += len(key[0])
            while self._size > _MOST_TEXT:
                oldest, _ = self._selectors.popitem(last=False)
                self._size -= len(oldest[0])
        return selector


_KEPT = _Kept()


def compile_selector(expression: str, *, lists: bool = False) -> Selector:
    """Compile an expression; compiled ones are kept, the last used ones of bounded length together.

    Args:
        expression: at most 10 KiB; must give a boolean, or a value whose kind only the device knows.
        lists: whether attributes may be lists (the DRAListTypeAttributes feature, with its ``includes``).

    Raises:
        BadSelector: it does not compile, or its worst case costs more than Kubernetes allows.
    """
    kept = _KEPT.get((expression, lists))
    return kept if kept is not None else _KEPT.put((expression, lists), _compile(expression, lists=lists))


def _compile(expression: str, *, lists: bool) -> Selector:
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
    _refuse_our_messages(parsed.value.expr)
    lookups, moved = cel_domains.lookups(parsed.value.expr)
    if moved:
        for name, inner in cel_domains.MAPS.items():
            nodes = [node for node in moved if node.ident_expr.name == name]
            serialised = cel_ast.rename(parsed, nodes, inner)
        program = env.deserialize(serialised)
    return Selector(expression, program, lookups=lookups, lists=lists)


def _refuse_our_messages(root: Any) -> None:
    """Quantities and versions are opaque in Kubernetes: no fields to read, no literals to write."""
    for node in cel_ast.walk(root):
        kind = cel_ast.kind_of(node)
        if kind == "select_expr" and node.select_expr.field == FIELD:
            raise BadSelector("a quantity or version has no fields")
        if kind == "struct_expr" and node.struct_expr.message_name.startswith("kubernetes."):
            raise BadSelector("quantities and versions are made by quantity() and semver()")


def _first_line(error: object) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0].removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ")[:500]


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
    declare("quantity", [text], amount, lambda t: make_quantity(quantity.parse(t)), member=False)
    declare("isQuantity", [text], boolean, cel_values.accepts(quantity.parse), member=False)
    declare("semver", [text], version, lambda t: make_version(semver.parse(t)), member=False)
    declare("isSemver", [text], boolean, cel_values.accepts(semver.parse), member=False)

    def mended(written: str, loose: bool) -> Semver:
        return semver.parse(semver.normalised(written) if loose else written)

    declare("semver", [text, boolean], version, lambda t, loose: make_version(mended(t, loose)), member=False)
    declare(
        "isSemver",
        [text, boolean],
        boolean,
        lambda t, loose: cel_values.accepts(lambda x: mended(x, loose))(t),
        member=False,
    )
    for own, first in ((amount, True), (version, False)):  # declared for both kinds, implemented once for messages
        declare("compareTo", [own, own], integer, compare if first else None, member=True)
        declare("isGreaterThan", [own, own], boolean, (lambda a, b: compare(a, b) > 0) if first else None, member=True)
        declare("isLessThan", [own, own], boolean, (lambda a, b: compare(a, b) < 0) if first else None, member=True)
    declare("sign", [amount], integer, cel_values.sign, member=True)
    declare("isInteger", [amount], boolean, lambda q: amount_of(q).whole in INT64, member=True)
    declare("asInteger", [amount], integer, cel_values.as_integer, member=True)
    declare("asApproximateFloat", [amount], real, lambda q: amount_of(q).nanos / 10**9, member=True)
    declare("add", [amount, amount], amount, lambda a, b: make_quantity(amount_of(a) + amount_of(b)), member=True)
    declare(
        "add", [amount, integer], amount, lambda a, n: make_quantity(amount_of(a) + quantity.of_int(n)), member=True
    )
    declare("sub", [amount, amount], amount, lambda a, b: make_quantity(amount_of(a) - amount_of(b)), member=True)
    declare(
        "sub", [amount, integer], amount, lambda a, n: make_quantity(amount_of(a) - quantity.of_int(n)), member=True
    )
    for part in ("major", "minor", "patch"):
        declare(part, [version], integer, lambda v, part=part: getattr(version_of(v), part), member=True)
    if lists:  # the runtime finds functions by the kinds of their arguments: each pair of kinds has to be there
        scalars = (text, integer, boolean, version)
        for target in (*scalars, kind.List(kind.DYN)):
            for item in scalars:
                declare("includes", [target, item], boolean, cel_values.includes, member=True)
    many = kind.List(kind.DYN)
    declare("sets.contains", [many, many], boolean, cel_values.contains_all, member=False)
    declare("sets.intersects", [many, many], boolean, cel_values.shares_any, member=False)
    equivalent = lambda a, b: cel_values.contains_all(a, b) and cel_values.contains_all(b, a)  # noqa: E731
    declare("sets.equivalent", [many, many], boolean, equivalent, member=False)
    declare("isSorted", [many], boolean, cel_values.is_sorted, member=True)
    for name, fold in (("sum", sum), ("min", min), ("max", max)):
        declare(name, [many], kind.DYN, fold, member=True)
    maps = {
        "attributes": kind.Map(text, kind.Map(text, kind.DYN)),
        "capacity": kind.Map(text, kind.Map(text, amount)),
    }
    variables = {"device.driver": text, "device.allowMultipleAllocations": boolean}
    for name, declared in maps.items():
        variables |= {f"device.{name}": declared, f"@{name}": declared}
    return cel.NewEnv(
        cel_values.POOL,
        variables=variables,
        extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings(), ext_bindings.ExtBindings()],
        functions=[cel.FunctionDecl(name, declared) for name, declared in overloads.items()],
    )
