"""Which tenants could use more of what another holds than of what they hold themselves.

Of B's devices, those in groups eligible for some request of A are *useful* to A. Weight for weight, A would have
⌊useful · w_A / w_B⌋ of them in B's place, and can use no more than its *demand*: what it holds and what its eligible
requests that got nothing ask for. A envies B by

    min(demand_A, ⌊useful_AB · w_A / w_B⌋) − held_A

devices where that is positive. Devices of all kinds count alike, and gangs as if they could be cut, so this is an upper
limit of what a tenant may complain about; whoever got all it asked for envies nobody.

Tenants and groups are indices here. A thousand tenants have a million pairs, so only the largest are named, and rows
that cannot hold one of those are not computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

CELLS = 1 << 22
"""(tenant, holding) cells computed in one go: 32 MiB a column."""


@dataclass(frozen=True)
class Bundles:
    """Who holds what: one entry for each tenant and group, in order of tenants."""

    tenant: Ints
    group: Ints
    devices: Ints


@dataclass(frozen=True)
class Claims:
    """Who could use what."""

    weight: Ints
    """Of each tenant."""
    unmet: Ints
    """Devices of each tenant's requests that could have something now and have nothing."""
    tenant: Ints
    """With ``group``, a column each: in which groups something would do for which tenant; repetition does no harm."""
    group: Ints


def envies(bundles: Bundles, claims: Claims, *, groups: int, most: int) -> list[tuple[int, int, int]]:
    """(who, whom, devices), the largest first, then by who and whom; at most ``most``."""
    if not len(bundles.tenant) or most < 1:
        return []
    holders, first = np.unique(bundles.tenant, return_index=True)
    held = np.zeros(len(claims.weight), dtype=np.int64)
    np.add.at(held, bundles.tenant, bundles.devices)
    best = (held[holders] / claims.weight[holders]).max()
    # No row holds more than what its tenant lacks, nor more than the richest bundle by weight would leave it.
    limit = np.minimum(claims.unmet, np.ceil(best * claims.weight).astype(np.int64) + 1 - held)
    rows = np.argsort(-limit, kind="stable")
    rows = rows[limit[rows] > 0]
    row_of = np.full(len(claims.weight), -1, dtype=np.int64)
    row_of[rows] = np.arange(len(rows))
    mine = row_of[claims.tenant] >= 0
    useful = np.zeros((len(rows), groups), dtype=np.bool_)
    useful[row_of[claims.tenant[mine]], claims.group[mine]] = True
    step = max(1, CELLS // len(bundles.tenant))
    found: list[tuple[int, int, int]] = []
    for low in range(0, len(rows), step):
        some = np.sort(rows[low : low + step])
        if len(found) == most and limit[some].max() < found[-1][2]:
            break
        shares = np.add.reduceat(useful[row_of[some]][:, bundles.group] * bundles.devices, first, axis=1)
        would = shares * claims.weight[some, None] // claims.weight[holders]
        amount = np.minimum(would, (held + claims.unmet)[some, None]) - held[some, None]
        found = sorted((*found, *_largest(amount, some, holders, most)), key=lambda each: (-each[2], *each[:2]))[:most]
    return found


def _largest(amount: Ints, rows: Ints, columns: Ints, most: int) -> list[tuple[int, int, int]]:
    """The largest positive entries; among equals those of the first row and column."""
    flat = amount.ravel()
    at = np.flatnonzero(flat > 0)
    if len(at) > most:
        last = np.partition(flat[at], -most)[-most]
        # A plan for many equal tenants has hundreds of thousands of equal entries; sorting them all would take seconds.
        above, equal = at[flat[at] > last], at[flat[at] == last]
        at = np.concatenate((above, equal[: most - len(above)]))
    row, column = np.divmod(at, len(columns))
    return list(zip(rows[row].tolist(), columns[column].tolist(), flat[at].tolist(), strict=True))
