"""The other side of `outside`: runs in the peers' own environment, knows none of our packages, talks JSON by lines.

    {"do": "skypilot", "offers": [[kind, price, spot], …]}      seeds a catalog; answers {"ok": true}
    {"do": "rank", "kinds": […], "spots": […], "count": 8, "nodes": 2}
        answers {"offers": [index, …]}: SkyPilot's own choice first, the rest by the costs its optimizer compared
    {"do": "cbc", "profit": […], "rows": [[columns, weights, limit], …], "seconds": 10}
        answers {"chosen": [column, …]}

Every answer has "seconds", the time the library itself took. An error is an answer, too: {"error": "…"}.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADS = [
    *("InstanceType", "vCPUs", "MemoryGiB", "AcceleratorName", "AcceleratorCount", "GpuInfo"),
    *("Region", "AvailabilityZone", "Price", "SpotPrice"),
]
MAX_COUNT = 8
"""Devices in the largest node we seed."""


class SkyPilot:
    """SkyPilot's optimizer, offline: a catalog of ours in a home of its own, and one cloud said to be enabled.

    All offers are rows of one catalog (OCI's: it has spot prices and several nodes), each in a region of its own, in
    every size from one device to eight at the price per device. Which cloud's file a row is in makes no difference
    where no data moves between clouds: the optimizer compares price × time.
    """

    def __init__(self, offers: Sequence[tuple[str, float, bool]]) -> None:
        home = Path(tempfile.mkdtemp(prefix="peers-sky-"))
        os.environ.update(HOME=str(home), SKYPILOT_DISABLE_USAGE_COLLECTION="1")
        catalogs = home / ".sky/catalogs/v8"
        kinds = sorted({kind for kind, _, _ in offers})
        self._write(catalogs / "common/accelerators.csv", [["AcceleratorName", "Clouds"], *([k, "oci"] for k in kinds)])
        rows: list[list[Any]] = [HEADS]
        for at, (kind, price, spot) in enumerate(offers):
            for count in range(1, MAX_COUNT + 1):
                prices = ["", price * count] if spot else [price * count, ""]
                rows.append([f"{kind}-{count}", 8, 64, kind, count, "", f"offer-{at}", f"offer-{at}", *prices])
        self._write(catalogs / "oci/vms.csv", rows)
        import sky  # type: ignore[import-not-found]  # in the peers' environment only
        from sky import check, clouds, optimizer

        self._sky, self._optimizer = sky, optimizer.Optimizer
        enabled = [clouds.OCI()]
        check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: enabled
        # The costs that the optimizer compares are its own; they are only listened to.
        self._costs: dict[Any, dict[Any, float]] = {}
        plain = optimizer.Optimizer._estimate_nodes_cost_or_time

        def listened(*args: Any, **kwargs: Any) -> Any:
            costs, candidates = plain(*args, **kwargs)
            self._costs = costs
            return costs, candidates

        optimizer.Optimizer._estimate_nodes_cost_or_time = staticmethod(listened)

    @staticmethod
    def _write(path: Path, rows: list[list[Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def rank(self, kinds: Sequence[str], spots: Sequence[bool], count: int, nodes: int) -> list[int]:
        """Offers, best first."""
        sky = self._sky
        with sky.Dag() as dag:
            task = sky.Task(name="request", num_nodes=nodes)
            task.set_resources(
                {sky.Resources(accelerators={kind: count}, use_spot=spot) for kind in kinds for spot in spots}
            )
        try:
            self._optimizer.optimize(dag, quiet=True)
        except sky.exceptions.ResourcesUnavailableError:
            return []
        costs = self._costs[task]
        first = task.best_resources.region
        order = [each.region for each, _ in sorted(costs.items(), key=lambda item: (item[1], item[0].region))]
        seen = dict.fromkeys([first, *order])
        return [int(region.removeprefix("offer-")) for region in seen]


def cbc(profit: Sequence[float], rows: Sequence[tuple[list[int], list[float], float]], seconds: float) -> list[int]:
    """PuLP's CBC, cold, one thread, as PuLP starts it."""
    import pulp  # type: ignore[import-not-found]  # in the peers' environment only

    whole = pulp.LpProblem("peers", pulp.LpMaximize)
    x = [pulp.LpVariable(f"x{at}", cat="Binary") for at in range(len(profit))]
    whole += pulp.LpAffineExpression(zip(x, profit, strict=True))
    for columns, weights, limit in rows:
        whole += pulp.LpAffineExpression((x[at], weight) for at, weight in zip(columns, weights, strict=True)) <= limit
    whole.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=seconds, threads=1))
    return [at for at, var in enumerate(x) if (var.value() or 0) > 0.5]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    # Libraries talk on standard output; that would not be JSON.
    os.dup2(2, 1)
    sky: SkyPilot | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        try:
            what = asked.pop("do")
            if what == "skypilot":
                sky = SkyPilot(**asked)
                answer: dict[str, Any] = {"ok": True}
            elif what == "rank" and sky is not None:
                answer = {"offers": sky.rank(**asked)}
            elif what == "cbc":
                answer = {"chosen": cbc(**asked)}
            else:
                answer = {"error": f"unknown: {what}"}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        answer["seconds"] = time.perf_counter() - began
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
