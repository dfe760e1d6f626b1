"""The worst case of what evaluating a CEL expression may cost, from its syntax tree alone.

Kubernetes refuses selectors whose worst case is above 1,000,000 units (resource.k8s.io, CELSelectorExpressionMaxCost),
so that nobody's claim can stop the scheduler. The units here are close to its: about one for a step, and the length of
what has to be read or copied for strings, lists and maps. Sizes that only a device knows are taken at their largest.
An expression has no way to loop but the comprehension macros and no way to grow data but joining, so following sizes
through the tree is enough; a doubling chain of ``cel.bind`` shows as the astronomical number it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.dra.cel_ast import kind_of

LIMIT = 1_000_000
_STRING, _MAP = 256, 48  # the longest attribute text, the most attributes of a device


@dataclass(frozen=True, slots=True)
class Size:
    """An upper bound: elements of a list or map, characters of a string; ``inner`` bounds each element."""

    count: int
    inner: Size | None = None

    def element(self) -> Size:
        return self.inner or Size(_STRING)

    def weight(self) -> int:
        return self.count * (self.inner.weight() if self.inner and self.inner.count > 1 else 1)


_ONE = Size(1)
_DEVICE = {
    "device.driver": Size(_STRING),
    "device.attributes": Size(_MAP, Size(_MAP, Size(_STRING))),
    "device.capacity": Size(_MAP, Size(_MAP, _ONE)),
}
_GROWING = {"_+_", "join", "format", "replace", "strings.quote", "add"}
_PICKING = {"_[_]", "_[?_]", "_?._", "value", "optional.of", "optional.ofNonZeroValue", "orValue", "or"}
_PRODUCTS = {"sets.contains", "sets.intersects", "sets.equivalent", "matches"}
_CHEAP = {"_&&_", "_||_", "!_", "@not_strictly_false", "compareTo", "isGreaterThan", "isLessThan", "size", "type"}


def worst_case(expr: Any) -> int:
    """Units one evaluation may cost at most; raises RecursionError for trees nested beyond reason."""
    return _visit(expr, {})[0]


def _visit(expr: Any, scope: dict[str, Size]) -> tuple[int, Size]:
    kind = kind_of(expr)
    if kind == "const_expr":
        return 0, Size(max(1, len(expr.const_expr.string_value)))
    if kind == "ident_expr":
        name = expr.ident_expr.name
        return 1, scope.get(name) or _DEVICE.get(name, _ONE)
    if kind == "select_expr":
        cost, size = _visit(expr.select_expr.operand, scope)
        return cost + 1, size.element()
    if kind == "list_expr":
        return _gather([_visit(element, scope) for element in expr.list_expr.elements])
    if kind == "struct_expr":
        entries = expr.struct_expr.entries
        return _gather([_visit(part, scope) for entry in entries for part in (entry.map_key, entry.value)])
    if kind == "call_expr":
        return _call(expr.call_expr, scope)
    if kind == "comprehension_expr":
        return _comprehension(expr.comprehension_expr, scope)
    return 0, _ONE


def _gather(parts: list[tuple[int, Size]]) -> tuple[int, Size]:
    inner = max((size for _, size in parts), key=lambda size: (size.weight(), size.count), default=_ONE)
    return sum(cost for cost, _ in parts) + len(parts) + 10, Size(len(parts), inner)


def _call(call: Any, scope: dict[str, Size]) -> tuple[int, Size]:
    parts = [_visit(arg, scope) for arg in ([call.target] if call.HasField("target") else []) + list(call.args)]
    cost = sum(cost for cost, _ in parts) + 1
    sizes = [size for _, size in parts] or [_ONE]
    weights = [size.weight() for size in sizes]
    name = call.function
    if name == "_?_:_":
        return cost, max(sizes[1:], key=Size.weight)
    if name in _PICKING:
        picked = sizes[0].element() if name.startswith("_") else max(sizes, key=Size.weight)
        return cost, picked
    if name in _CHEAP:
        return cost, _ONE
    if name == "_+_":
        inner = max((size.element() for size in sizes), key=Size.weight) if any(s.inner for s in sizes) else None
        return cost + sum(weights), Size(sum(size.count for size in sizes), inner)
    if name in _GROWING:
        grown = 1
        for weight in weights:
            grown *= weight + 1
        return cost + grown, Size(grown)
    if name in _PRODUCTS:
        return cost + weights[0] * max(1, weights[-1]), _ONE
    if name == "split":
        return cost + sum(weights), Size(weights[0] + 1, Size(weights[0]))
    return cost + sum(weights), max(sizes, key=Size.weight)


def _comprehension(loop: Any, scope: dict[str, Size]) -> tuple[int, Size]:
    range_cost, over = _visit(loop.iter_range, scope)
    init_cost, start = _visit(loop.accu_init, scope)
    collects = kind_of(loop.accu_init) == "list_expr" and not loop.accu_init.list_expr.elements
    inside = scope | {loop.iter_var: over.element(), loop.accu_var: Size(0) if collects else start}
    turn = _visit(loop.loop_condition, inside)[0] + 1
    step_cost, step = _visit(loop.loop_step, inside)
    ends = Size(over.count * max(1, step.count), step.inner or _ONE) if collects else start
    result_cost, result = _visit(loop.result, scope | {loop.accu_var: ends})
    return range_cost + init_cost + over.count * (turn + step_cost) + result_cost, result
