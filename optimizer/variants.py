"""Every way a request says it could run, but for where: each of its forms at each of its starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from optimizer.market import Ints, Market
from optimizer.problem import Ask


@dataclass(frozen=True)
class Variants:
    """Requests, each in every form and at every start that its window allows; arrays of one length."""

    asks: Sequence[Ask]
    ask: Ints
    """Index into ``asks``; rising."""
    form: Ints
    bucket: Ints
    """In which it starts; −1 where no start is in its window."""
    until: Ints
    """First bucket in which it does not run any more."""
    devices: Ints
    """Of one worker."""
    workers: Ints
    duration: Ints
    """Seconds, in this form."""

    def __len__(self) -> int:
        return len(self.ask)

    def each(self) -> Iterator[Ask]:
        """The request of every variant."""
        return (self.asks[at] for at in self.ask.tolist())


def variants(market: Market, asks: Sequence[Ask]) -> Variants:
    """Every form and start of every request; one that has no start still has a row, to be told why."""
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    starts: list[int] = market.starts.tolist()
    single = len(starts) == 1
    for at, ask in enumerate(asks):
        for number in range(1 + len(ask.forms)):
            (devices, workers), seconds = shape(ask, number), lasting(ask, number)
            if single and ask.not_before_s == 0 and ask.end_by_s is None:
                rows.append((at, number, 0, 1, devices, workers, seconds))
                continue
            last = ask.latest_s if ask.end_by_s is None else min(ask.latest_s, ask.end_by_s - seconds)
            last = min(0, last) if ask.running is not None else last
            fitting = [bucket for bucket, start in enumerate(starts) if ask.not_before_s <= start <= last]
            for bucket in fitting or [-1]:
                until = market.span(starts[max(bucket, 0)], starts[max(bucket, 0)] + seconds)[1]
                rows.append((at, number, bucket, until, devices, workers, seconds))
    table = np.array(rows, dtype=np.int64).reshape(-1, 7).T
    return Variants(asks, *table)


def shape(ask: Ask, form: int) -> tuple[int, int]:
    """Devices of a worker, and workers, of one form of a request (0: its own)."""
    if form == 0:
        return ask.devices, ask.workers
    return ask.forms[form - 1].devices, ask.forms[form - 1].workers


def lasting(ask: Ask, form: int) -> int:
    """Seconds that one form of a request takes."""
    return ask.duration_s if form == 0 else max(1, -(-ask.duration_s * 1_000 // ask.forms[form - 1].speed_milli))
