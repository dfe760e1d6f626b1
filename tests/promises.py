"""The form in which tests of the checker are written: a plan that keeps all promises, and what breaks one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from optimizer.check import violations
from optimizer.problem import Problem
from optimizer.solution import Placement

Plan = dict[str, Placement]


@dataclass(frozen=True)
class Case:
    """One promise, kept by ``plan`` in ``problem``, and broken by the other plan, or in the other problem."""

    promise: str
    problem: Problem
    plan: Plan
    broken: Problem | Plan
    says: str
    """A pattern that finds the sentence which names it."""
    alone: bool = True
    """Nothing else is broken with it."""


def cases(*given: Case) -> pytest.MarkDecorator:
    """A test for each, named after its promise."""
    return pytest.mark.parametrize("case", [pytest.param(each, id=each.promise) for each in given])


def sees(case: Case) -> None:
    """The checker finds nothing wrong with the one, and names what is wrong with the other."""
    assert violations(case.problem, case.plan) == ()
    broken = case.broken
    found = violations(broken, case.plan) if isinstance(broken, Problem) else violations(case.problem, broken)
    assert any(re.search(case.says, each) for each in found), found
    assert all(re.fullmatch(r"[A-Z].*\.", each) for each in found), found
    assert len(found) == 1 or not case.alone, found
