"""Which nodes a rule means: a name, all of them, or a node selector as kube-scheduler evaluates it."""

from __future__ import annotations

from broker.dra.model import Node, NodeRule, NodeTerm, Requirement


class BadNodeSelector(ValueError):
    """A node selector that Kubernetes would refuse to evaluate."""


def matches(rule: NodeRule, node: Node) -> bool:
    """Whether the rule means this node; a rule in which nothing known is set means none.

    Raises:
        BadNodeSelector: an unknown operator, or values that do not fit it.
    """
    if rule.name:
        return rule.name == node.name
    if rule.everywhere:
        return True
    if rule.terms is None:
        return False
    return any([_term_holds(term, node) for term in rule.terms])  # every term is looked at, so that errors do show


def _term_holds(term: NodeTerm, node: Node) -> bool:
    if not term.expressions and not term.fields:
        return False
    labels = [_label_holds(requirement, node) for requirement in term.expressions]
    fields = [_field_holds(requirement, node) for requirement in term.fields]
    return all(labels) and all(fields)


def _label_holds(requirement: Requirement, node: Node) -> bool:
    value = node.labels.get(requirement.key)
    operator, values = requirement.operator, requirement.values
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator in ("Gt", "Lt"):
        bound = _integer(values[0]) if len(values) == 1 else None
        if bound is None:
            raise BadNodeSelector(f"{operator} needs exactly one integer")
        number = _integer(value) if value is not None else None
        return number is not None and (number > bound if operator == "Gt" else number < bound)
    raise BadNodeSelector(f"unknown operator {operator!r}")


def _field_holds(requirement: Requirement, node: Node) -> bool:
    if requirement.key != "metadata.name" or len(requirement.values) != 1:
        raise BadNodeSelector(f"field selection only by one metadata.name, not {requirement.key!r}")
    if requirement.operator == "In":
        return requirement.values[0] == node.name
    if requirement.operator == "NotIn":
        return requirement.values[0] != node.name
    raise BadNodeSelector(f"unknown field operator {requirement.operator!r}")


def _integer(text: str) -> int | None:
    try:
        return int(text) if len(text) <= 20 else None
    except ValueError:
        return None
