"""Domains in selectors: an unknown one looks like an empty map, yet is not there.

``device.attributes["x.example.com"]`` never fails in Kubernetes, while ``"x.example.com" in device.attributes`` tells
the truth. So the nodes of an expression that look a domain up are found, to be pointed at maps in which every domain
that the expression could name exists.
"""

from __future__ import annotations

from typing import Any

from broker.dra import cel_ast

MAPS = {"device.attributes": "@attributes", "device.capacity": "@capacity"}
DRIVER = ""  # among domains: the driver's own, which may be looked up as device.driver
_LOOKUPS = {"_[_]", "_[?_]", "_?._"}


def lookups(root: Any) -> tuple[frozenset[str], list[Any]]:
    """The domains an expression may look up, and the nodes that look them up.

    Those nodes are pointed at maps in which every such domain exists. Asking the maps themselves (``in``, ``size``,
    going through them) stays with the maps as published, as in Kubernetes.
    """
    plain: set[int] = set()
    found: list[Any] = []
    direct: set[str] = set()
    constants: set[str] = set()
    looked_up: set[int] = set()
    for node in cel_ast.walk(root):
        kind = cel_ast.kind_of(node)
        if kind == "ident_expr" and node.ident_expr.name in MAPS:
            found.append(node)
        elif kind == "const_expr":
            constants.add(node.const_expr.string_value)
        elif kind == "select_expr":
            operand = node.select_expr.operand
            constants.add(node.select_expr.field)
            if _is_map(operand):
                looked_up.add(operand.id)
                direct.add(node.select_expr.field)
        elif kind == "call_expr":
            _note_call(node.call_expr, looked_up, plain, direct)
        elif kind == "comprehension_expr" and _is_map(node.comprehension_expr.iter_range):
            plain.add(node.comprehension_expr.iter_range.id)
    moved = [node for node in found if node.id not in plain]
    indirect = any(node.id not in looked_up for node in moved)
    if indirect:
        return frozenset(constants | {DRIVER}), moved
    return frozenset(direct), moved


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
    return cel_ast.kind_of(node) == "ident_expr" and node.ident_expr.name in MAPS
