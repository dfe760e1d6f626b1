"""The solver beside every other library with native code that we bring: two copies of one C++ library can clash.

It happened: OR-Tools 9.15 and highspy 1.15, both of which carry HiGHS, cannot be loaded in one process in either order
(google/or-tools issue 5246; so it was here with 1.15.0, while 1.14.0 and 1.16.0 passed). So each pair is loaded in both
orders, in a process of its own, and both are then used; and highspy, should anyone bring it, stays below 1.15.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOLVE = """
from ortools.sat.python import cp_model
from ortools.linear_solver.python import model_builder
one = cp_model.CpModel()
x = one.new_bool_var("x")
one.maximize(x)
assert cp_model.CpSolver().solve(one) == cp_model.OPTIMAL
two = model_builder.Model()
y = two.new_int_var(0, 3, "y")
two.add(2 * y <= 5)
two.maximize(y)
solver = model_builder.Solver("highs")
assert solver.solve(two) == model_builder.SolveStatus.OPTIMAL
assert round(solver.objective_value) == 2
"""
USE = {
    "numpy": "import numpy\nassert numpy.linalg.solve(numpy.eye(2) * 2, numpy.ones(2)).tolist() == [0.5, 0.5]",
    "scipy": (
        "import scipy.optimize, scipy.sparse\n"
        "found = scipy.optimize.milp([-1.0], integrality=[1], bounds=scipy.optimize.Bounds(0, 3),\n"
        "    constraints=scipy.optimize.LinearConstraint(scipy.sparse.csr_array([[2.0]]), ub=5))\n"
        "assert round(-found.fun) == 2"
    ),
    "highspy": (
        "import highspy\nh = highspy.Highs()\nh.silent()\nz = h.addIntegral(0, 3, 1.0)\nh.addConstr(2 * z <= 5)\n"
        "h.maximize(z)\nassert round(h.getObjectiveValue()) == 2"
    ),
    "psycopg": "import psycopg\nassert psycopg.pq.version() > 0",
    "cryptography": (
        "from cryptography.hazmat.primitives.asymmetric import ed25519\ned25519.Ed25519PrivateKey.generate()"
    ),
    "cel-expr-python": "import cel_expr_python",
    "protobuf": "from google.protobuf import struct_pb2\nassert struct_pb2.Value(number_value=1).SerializeToString()",
    "pydantic": "import pydantic\nassert pydantic.TypeAdapter(int).validate_python('1') == 1",
}
"""How each is loaded and used. One that we don't depend on (any more, or yet) is left out."""


def declared() -> dict[str, str]:
    """Every requirement of ours and of the tests: name → what it says of versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    parts = (re.fullmatch(r"([A-Za-z0-9_.-]+)(\[[^]]*\])?([^;]*)(;.*)?", line) for line in lines)
    return {part[1].lower(): part[3] for part in parts if part is not None}


@pytest.mark.parametrize("first", ["ortools", "other"])
@pytest.mark.parametrize("other", [name for name in USE if name in declared()])
def test_the_solver_lives_with_each_other_native_library_in_both_orders(other: str, first: str) -> None:
    use = USE[other]
    # Both are loaded before either is used.
    load = re.findall(r"^(?:import|from) .*$", use, re.MULTILINE), re.findall(r"^from .*$", SOLVE, re.MULTILINE)
    imports = load[0] + load[1] if first == "other" else load[1] + load[0]
    program = "\n".join([*imports, SOLVE, use, "print('both')"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "both"


def test_the_library_that_clashes_with_the_solver_stays_below_the_version_that_does() -> None:
    if wanted := declared().get("highspy"):
        assert "<1.15" in wanted
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if pin := re.fullmatch(r"highspy==(\d+)\.(\d+).*", line):
            assert (int(pin[1]), int(pin[2])) < (1, 15)


def test_the_solver_is_pinned_to_the_release_that_was_tried_with_the_others() -> None:
    wanted = declared()["ortools"]
    pinned = re.search(r"^ortools==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f">={pinned[1]}" in wanted
    assert "<" in wanted
