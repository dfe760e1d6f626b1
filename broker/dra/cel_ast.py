"""The parsed form of a CEL expression, read and edited as protobuf messages.

The CEL runtime compiles an expression and hands its checked syntax tree out (and takes it back) as a serialised
``cel.expr.CheckedExpr`` (https://github.com/google/cel-spec, checked.proto and syntax.proto). Two things of the
Kubernetes environment need that tree: the worst case of what an evaluation may cost, and the rule that looking up an
unknown domain gives an empty map. Only the fields used here are described; protobuf keeps the others untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_STRING, _BOOL, _INT64, _MESSAGE = 9, 8, 3, 11

_SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    # A message has fields with a name, a number, a type, and whether there may be several of them.
    "Constant": [("string_value", 6, "string", False)],
    "Ident": [("name", 1, "string", False)],
    "Select": [("operand", 1, "Expr", False), ("field", 2, "string", False), ("test_only", 3, "bool", False)],
    "Call": [("target", 1, "Expr", False), ("function", 2, "string", False), ("args", 3, "Expr", True)],
    "CreateList": [("elements", 1, "Expr", True)],
    "Entry": [("field_key", 2, "string", False), ("map_key", 3, "Expr", False), ("value", 4, "Expr", False)],
    "CreateStruct": [("message_name", 1, "string", False), ("entries", 2, "Entry", True)],
    "Comprehension": [
        ("iter_var", 1, "string", False),
        ("iter_range", 2, "Expr", False),
        ("accu_var", 3, "string", False),
        ("accu_init", 4, "Expr", False),
        ("loop_condition", 5, "Expr", False),
        ("loop_step", 6, "Expr", False),
        ("result", 7, "Expr", False),
    ],
    "Expr": [
        ("id", 2, "int64", False),
        ("const_expr", 3, "Constant", False),
        ("ident_expr", 4, "Ident", False),
        ("select_expr", 5, "Select", False),
        ("call_expr", 6, "Call", False),
        ("list_expr", 7, "CreateList", False),
        ("struct_expr", 8, "CreateStruct", False),
        ("comprehension_expr", 9, "Comprehension", False),
    ],
    "Reference": [("name", 1, "string", False)],
    "ReferenceEntry": [("key", 1, "int64", False), ("value", 2, "Reference", False)],
    "CheckedExpr": [("reference_map", 2, "ReferenceEntry", True), ("expr", 4, "Expr", False)],
    "Wrapped": [("type_url", 1, "string", False), ("value", 2, "CheckedExpr", False)],  # as google.protobuf.Any
}
KINDS = ("const_expr", "ident_expr", "select_expr", "call_expr", "list_expr", "struct_expr", "comprehension_expr")


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="lendmesh/cel_ast.proto", package="cel.ast", syntax="proto2")
    scalars = {"string": _STRING, "bool": _BOOL, "int64": _INT64}
    for message, fields in _SCHEMA.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = declared.field.add(name=name, number=number, label=3 if repeated else 1)
            field.type = scalars.get(kind, _MESSAGE)
            if kind not in scalars:
                field.type_name = f".cel.ast.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cel.ast.Wrapped"))


_Wrapped = _message_class()


def parse(serialised: bytes) -> Any:
    """The checked expression, in its envelope, as a mutable message (fields as in ``_SCHEMA``)."""
    return _Wrapped.FromString(serialised)


def rename(parsed: Any, nodes: list[Any], name: str) -> bytes:
    """Let the given identifier nodes mean another variable; the serialised result."""
    ids = {node.id for node in nodes}
    for node in nodes:
        node.ident_expr.name = name
    for entry in parsed.value.reference_map:
        if entry.key in ids:
            entry.value.name = name
    serialised: bytes = parsed.SerializeToString()
    return serialised


def kind_of(expr: Any) -> str:
    """Which of ``KINDS`` this node is; empty for a node without a body (an absent sub-expression)."""
    return next((kind for kind in KINDS if expr.HasField(kind)), "")


def children(expr: Any) -> list[Any]:
    """The direct sub-expressions of a node."""
    kind = kind_of(expr)
    body: Any = getattr(expr, kind) if kind else None
    if kind == "select_expr":
        return [body.operand]
    if kind == "call_expr":
        return ([body.target] if body.HasField("target") else []) + list(body.args)
    if kind == "list_expr":
        return list(body.elements)
    if kind == "struct_expr":
        return [child for entry in body.entries for child in (entry.map_key, entry.value)]
    if kind == "comprehension_expr":
        return [body.iter_range, body.accu_init, body.loop_condition, body.loop_step, body.result]
    return []


def walk(expr: Any) -> Iterator[Any]:
    """Every node of the tree, parents first; iterative, since an expression may be nested deeply."""
    stack = [expr]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))
