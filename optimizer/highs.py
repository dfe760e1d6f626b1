"""HiGHS in a process of its own: a mixed-integer problem on standard input, its answer on standard output.

It prints to standard output as it likes, cannot be told to stop, and what it dies of should not be ours; a process has
an output of its own, and can be ended. ``mixed.py`` is its only caller:

    python -m optimizer.highs < problem.npz > answer.npz
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO

import numpy as np


def solve(given: Any) -> dict[str, Any]:
    """Arrays of the problem (as ``mixed.mixed`` writes them) → ``x`` (empty: nothing was found) and ``bound``."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    shape = tuple(given["shape"].tolist())
    rows = csr_array((given["data"], given["indices"], given["indptr"]), shape=shape)
    found = milp(
        given["cost"],
        integrality=np.ones(shape[1], dtype=np.uint8),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows, given["least"], given["most"]),
        options={"time_limit": float(given["seconds"]), "mip_rel_gap": 1e-5},
    )
    bound = found.mip_dual_bound
    return {
        "x": np.zeros(0) if found.x is None else found.x,
        "bound": np.array(-np.inf if bound is None else bound, dtype=np.float64),
    }


def main(source: BinaryIO, target: BinaryIO) -> None:
    """One problem, one answer."""
    answer = io.BytesIO()
    with np.load(io.BytesIO(source.read()), allow_pickle=False) as given:
        np.savez(answer, **solve(given))
    target.write(answer.getvalue())
    target.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main(sys.stdin.buffer, answers)
